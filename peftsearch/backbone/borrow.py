"""Borrowing a user's own transformers model as a frozen backbone, and giving it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.backbone import Backbone, shapes_of
from peftsearch.backbone.family import Family
from peftsearch.backbone.measure import measure, positions_of
from peftsearch.backbone.recognise import family_of
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError

__all__ = ["borrow"]

Undo = Callable[[], None]


def borrow(model: Any, prefixes: bool) -> tuple[Backbone, Undo]:
    """The body of `model` as a backbone, and a function that gives the model back as it was.

    Body and language-model head are frozen in place. Unlike a loaded backbone, it keeps its pooler,
    its mode (`train`, `eval`) and, unless there are `prefixes`, its own attention implementation.
    Raises ConfigurationError for anything but a transformers model of a known family.
    """
    config = getattr(model, "config", None)
    body: Any = getattr(model, "base_model", None)
    if config is None or body is None:
        raise ConfigurationError(
            f"{type(model).__name__} is not a transformers model (it has no config and base_model)"
        )
    family = family_of(config)
    backbone = Backbone(
        name=getattr(config, "name_or_path", "") or type(model).__name__,
        model=body,
        tokenizer=None,
        family=family,
        shapes=_shapes(model, body, family),
        pooler=None,
        fingerprint="",
        max_length=positions_of(config),
        lm=model,
    )
    undo = [_frozen(part) for part in (body, model.get_output_embeddings()) if part is not None]
    if prefixes and family.takes_prefix:
        undo += [_own_attention(model)]

    def give_back() -> None:
        while undo:
            undo.pop()()

    return backbone, give_back


def _shapes(model: Any, body: Any, family: Family) -> BackboneShapes:
    """The shapes of the body alone.

    T5's language models are their own base models: there the config is measured, since the
    language model's head is no part of the body.
    """
    if body is model and body.get_output_embeddings() is not None:
        return shapes_of(body.config)
    with _without_pooler(body, family):
        return measure(body, body.config, family)


@contextmanager
def _without_pooler(body: nn.Module, family: Family) -> Iterator[None]:
    """A context in which the body has no pooler, which counts neither as body nor as a place."""
    pooler = getattr(body, family.pooler, None) if family.pooler else None
    if pooler is None:
        yield
        return
    setattr(body, str(family.pooler), None)
    try:
        yield
    finally:
        setattr(body, str(family.pooler), pooler)


def _frozen(part: nn.Module) -> Undo:
    """Freeze every parameter; returns a function that makes those trainable again that were."""
    trainable = [parameter for parameter in part.parameters() if parameter.requires_grad]
    part.requires_grad_(False)

    def thaw() -> None:
        for parameter in trainable:
            parameter.requires_grad_(True)

    return thaw


def _own_attention(model: Any) -> Undo:
    """Switch to the attention function that knows prefixes; returns a function that undoes it."""
    before = model.config._attn_implementation
    attention.register()
    model.set_attn_implementation(attention.NAME)
    return lambda: model.set_attn_implementation(before)
