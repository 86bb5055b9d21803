"""The lowest layers standing aside: what they would give is given instead, or taken out.

Layers that no configuration touches give the same states in every epoch and every trial. The
model's own forward still runs, with its masks and positions; the layers below `count` of the first
stack (an encoder-decoder's encoder) cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.measure import stack_layers

__all__ = ["skipping_lower_layers", "states_after"]


class _Reached(Exception):
    """Carries the states out of a forward that need not go on."""

    def __init__(self, states: Tensor) -> None:
        super().__init__("not an error")
        self.states = states


@contextmanager
def skipping_lower_layers(backbone: Backbone, count: int, states: Tensor) -> Iterator[None]:
    """In every forward of this context the lowest `count` layers (at least 1) give `states`
    (batch, seq, d), whatever they read.
    """
    gives = backbone.family.layer_output
    layers = _lowest(backbone, count)

    def passing(hidden: Tensor, *others: Any, **options: Any) -> Any:
        return gives(hidden, others)

    def giving(hidden: Tensor, *others: Any, **options: Any) -> Any:
        return gives(states, others)

    aside = layers[1:] if backbone.family.first_layer_shares else layers
    for layer in aside[:-1]:
        layer.forward = passing
    aside[-1].forward = giving
    try:
        yield
    finally:
        for layer in aside:
            del layer.forward  # the class's own again


@torch.inference_mode()
def states_after(backbone: Backbone, count: int, inputs: Mapping[str, Tensor]) -> Tensor:
    """States (batch, seq, d) after the lowest `count` layers, for `inputs` of the first stack."""
    stack = backbone.model.get_submodule(backbone.family.stacks[0].module)
    options = {"use_cache": False} if backbone.shapes.reads_forward else {}

    def take(layer: nn.Module, args: object, output: Any) -> None:
        raise _Reached(output[0] if isinstance(output, tuple) else output)

    hook = _lowest(backbone, count)[-1].register_forward_hook(take)
    try:
        stack(**inputs, **options)
    except _Reached as reached:
        return reached.states
    finally:
        hook.remove()
    raise AssertionError("a forward without its layers")


def _lowest(backbone: Backbone, count: int) -> Sequence[nn.Module]:
    return list(stack_layers(backbone.model, backbone.family.stacks[0]))[:count]
