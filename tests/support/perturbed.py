"""A method attached to a tiny backbone, moved off its beginning, and what can be seen of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach.attach import Attachment, attach
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.shapes import BackboneShapes
from support.families import EOS, backbone_of, inputs, lm_inputs, states, tiny_lm
from support.points import point

__all__ = [
    "attached",
    "backward",
    "base",
    "base_logits",
    "checkpointing_on",
    "counted_backward",
    "distance",
    "fill",
    "generated",
    "gradient",
    "live_and_dead",
    "norm",
    "outputs",
    "untouched",
]


@contextmanager
def attached(backbone: Backbone, method: str, noise: float = 0.2) -> Iterator[Attachment]:
    """With every tuned tensor moved off its beginning, as training would, by `noise`."""
    generator = torch.Generator().manual_seed(3)
    with attach(backbone, point(method, backbone.shapes), seed=1) as attachment:
        with torch.no_grad():
            for parameter in attachment.tensors.values():
                moved = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(noise * moved)
        yield attachment


def fill(places: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in places.items():
            tensor.copy_(values[name])


@torch.no_grad()
def outputs(family: str, backbone: Backbone) -> Tensor:
    return states(family, backbone, inputs(family))


@cache
def base(family: str) -> Tensor:
    return outputs(family, backbone_of(family))


def untouched(family: str) -> Backbone:
    """The backbone, after its outputs have been noted: nothing is attached to it yet."""
    base(family)
    return backbone_of(family)


def backward(family: str, backbone: Backbone, attachment: Attachment) -> None:
    attachment.begin_step(0)
    output = states(family, backbone, inputs(family))
    generator = torch.Generator().manual_seed(4)
    weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    (output * weights.to(output.dtype)).sum().backward()


def counted_backward(
    family: str, backbone: Backbone, attachment: Attachment
) -> tuple[dict[str, Tensor], int]:
    """Gradients, and how often a layer's queries were computed."""
    calls: list[None] = []
    handles = [
        layer.get_submodule(stack.attention.query.path).register_forward_hook(
            lambda *_: calls.append(None)
        )
        for stack, layer in _stacks_and_layers(backbone)
    ]
    for parameter in attachment.tensors.values():
        parameter.grad = None
    backward(family, backbone, attachment)
    for handle in handles:
        handle.remove()
    return {n: gradient(n, p) for n, p in attachment.tensors.items()}, len(calls)


@contextmanager
def checkpointing_on(model: Any) -> Iterator[None]:
    """Training mode with every layer recomputed in the backward pass."""
    with warnings.catch_warnings():
        # The newest transformers has a new name for it, the oldest supported one only this.
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable()
        model.train()
        try:
            yield
        finally:
            model.eval()
            model.gradient_checkpointing_disable()


def _stacks_and_layers(backbone: Backbone) -> list[tuple[Any, nn.Module]]:
    return [backbone.stack_and_layer(index) for index in range(backbone.shapes.layers)]


def gradient(name: str, parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, f"{name} gets no gradient"
    return parameter.grad


def live_and_dead(
    name: str, gradient: Tensor, shapes: BackboneShapes
) -> tuple[Tensor | None, Tensor]:
    """A whole tensor of the body may have entries without a gradient: biases on keys."""
    key = name.split("/")[1]
    tensor = next((t for t in shapes.tensors if t.name == key), None)
    dead = torch.zeros(gradient.numel(), dtype=torch.bool)
    if tensor is not None and tensor.parameters == gradient.numel():
        for start, stop in tensor.dead:
            dead[start:stop] = True
    flat = gradient.flatten()
    return (None if dead.all() else flat[~dead]), flat[dead]


def generated(family: str, beams: int, cache: bool) -> tuple[Tensor, Tensor]:
    """Sequences, and the logits of every step (greedy) or the score of every beam."""
    model = tiny_lm(family)
    found = model.generate(
        **lm_inputs(family),
        num_beams=beams,
        use_cache=cache,
        do_sample=False,
        max_new_tokens=3,
        min_new_tokens=3,
        eos_token_id=EOS,
        pad_token_id=model.config.pad_token_id,
        # No trained model writes it, and some families' positions count the tokens that are none.
        suppress_tokens=[model.config.pad_token_id],
        return_dict_in_generate=True,
        output_logits=beams == 1,
        output_scores=beams > 1,
    )
    return found.sequences, torch.stack(found.logits) if beams == 1 else found.sequences_scores


@cache
def base_logits(family: str) -> Tensor:
    return generated(family, 1, True)[1]


def norm(tensor: Tensor) -> float:
    return float(tensor.double().norm())


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
