"""Skipping the lowest layers: their states are computed once, and put in place of computing them.

Layers that no configuration modifies give the same states in every epoch and every trial. The
model's own forward still runs, with its masks and positions; the lowest `count` layers of the first
stack (an encoder-decoder's encoder) cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.backbone import Backbone
from peftsearch.backbone.measure import stack_layers

__all__ = ["skipping_lower_layers", "states_after"]


class _Reached(Exception):
    """Carries states [batch, tokens, hidden] out of a forward that need not go on."""

    def __init__(self, states: Tensor) -> None:
        super().__init__("not an error")
        self.states = states


@contextmanager
def skipping_lower_layers(backbone: Backbone, count: int, states: Tensor) -> Iterator[None]:
    """Context in whose forwards the lowest `count` layers (at least 1) return `states` [batch,
    tokens, hidden], whatever they read.
    """
    gives = backbone.family.layer_output
    layers = _lowest(backbone, count)

    def passing(hidden: Tensor, *others: Any, **options: Any) -> Any:
        return gives(hidden, others)

    def giving(hidden: Tensor, *others: Any, **options: Any) -> Any:
        return gives(states, others)

    # T5's first layer has to run: it computes the position bias that the others add.
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
    """States [batch, tokens, hidden] after the lowest `count` layers, for `inputs` of the first
    stack (token ids, mask, …), each [batch, tokens].
    """
    stack = backbone.model.get_submodule(backbone.family.stacks[0].module)
    options = {"use_cache": False} if backbone.shapes.is_causal else {}

    def take(layer: nn.Module, args: object, output: Any) -> None:
        raise _Reached(output[0] if isinstance(output, tuple) else output)

    hook = _lowest(backbone, count)[-1].register_forward_hook(take)
    try:
        stack(**inputs, **options)
    except _Reached as reached:
        return reached.states
    finally:
        hook.remove()
    raise AssertionError("the stack's forward did not run its layers")


def _lowest(backbone: Backbone, count: int) -> Sequence[nn.Module]:
    """The lowest `count` layers of the first stack."""
    return list(stack_layers(backbone.model, backbone.family.stacks[0]))[:count]
