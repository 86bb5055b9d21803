"""Frozen linear layers computed in low precision for a while, with an exact backward.

The forward alone is approximate: gradients go through the frozen fp32 weight. The layers' own
tensors stay in place, and each weight is packed once a process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from peftsearch.backbone.backbone import Backbone
from peftsearch.backbone.measure import stack_layers
from peftsearch.backbone.savings.low_precision import LowPrecision, Product

__all__ = ["frozen_layers_in"]


@contextmanager
def frozen_layers_in(backbone: Backbone, precision: LowPrecision | None) -> Iterator[None]:
    """Context in which the frozen linear layers of the backbone's stacks compute their forward in
    `precision`; layers with a tuned weight do not, and biases may be tuned. None: nothing changes.
    """
    layers = [] if precision is None else _frozen_layers(backbone, precision)
    # An instance's forward hides its class's, and hooks still run around it.
    for layer in layers:
        layer.module.forward = layer
    try:
        yield
    finally:
        for layer in layers:
            del layer.module.forward  # the class's own again


@dataclass(frozen=True)
class _FrozenLinear:
    """The forward x [..., d_in] → [..., d_out] of one layer.

    `stored` is its parameter, `weight` a view of it as [d_out, d_in] (GPT-2's Conv1D stores
    [d_in, d_out]).
    """

    module: nn.Module
    stored: Tensor
    weight: Tensor
    product: Product

    def __call__(self, x: Tensor) -> Tensor:
        if self.module.weight is not self.stored:  # replaced meanwhile by a tuned one: exact
            return type(self.module).forward(self.module, x)  # type: ignore[no-any-return]
        y: Tensor = _LowForward.apply(x, self.module.bias, self.weight, self.product)  # type: ignore[no-untyped-call]
        return y


class _LowForward(torch.autograd.Function):
    """y = x Wᵀ + b in low precision; dx = g W and db = Σ g in fp32.

    x and dx are [..., d_in], y and g [..., d_out], W [d_out, d_in], b and db [d_out].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, weight: Tensor, product: Product) -> Any:
        # Not saved for backward: it is frozen, and autograd need not watch it for changes.
        ctx.weight = weight
        return product(x.flatten(0, -2), bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        dx = gradient @ ctx.weight if ctx.needs_input_grad[0] else None
        db = gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return dx, db, None, None


_PACKED: WeakKeyDictionary[nn.Module, dict[str, tuple[Tensor, Product]]] = WeakKeyDictionary()
"""Layer → name of a precision → the frozen parameter, and the product with it."""


def _frozen_layers(backbone: Backbone, precision: LowPrecision) -> list[_FrozenLinear]:
    found = []
    for stack in backbone.family.stacks:
        for layer in stack_layers(backbone.model, stack):
            for module in layer.modules():
                if isinstance(module, (nn.Linear, Conv1D)) and _is_frozen(module.weight):
                    found.append(_frozen_layer(module, precision))
    return found


def _is_frozen(weight: Tensor) -> bool:
    """Whether a weight is the body's own: tuned copies require a gradient, computed ones are no
    parameters.
    """
    return isinstance(weight, nn.Parameter) and not weight.requires_grad


def _frozen_layer(module: nn.Linear | Conv1D, precision: LowPrecision) -> _FrozenLinear:
    stored = module.weight
    weight = stored.detach().T if isinstance(module, Conv1D) else stored.detach()
    packed = _PACKED.setdefault(module, {})
    if precision.name not in packed or packed[precision.name][0] is not stored:
        packed[precision.name] = stored, precision.packed(weight)
    return _FrozenLinear(module, stored, weight, packed[precision.name][1])
