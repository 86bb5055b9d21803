"""Shapes that docstrings promise, in forwards of tiny models with every method attached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.attach import attach
from peftsearch.design.composition import COMPOSITIONS, CompositionContext
from peftsearch.design.form import FORMS, Bottleneck, Prefix
from support.families import backbone_of, inputs
from support.matrix import refusal
from support.points import POINT_NAMES, point

TEXTS, TOKENS = 3, 9
FAMILIES = ("bert", "llama")
"""An encoder, and a decoder whose query heads share key and value heads."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the functions that were called; each call is checked."""
    called: list[str] = []
    for form in (Bottleneck, *FORMS.values()):
        _patch(monkeypatch, form, "delta", _checked_delta, called)
    for composition in COMPOSITIONS.values():
        _patch(monkeypatch, composition, "compose", _checked_compose, called)
    return called


def _patch(
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Any],
    name: str,
    checked: Callable[..., Tensor],
    called: list[str],
) -> None:
    if name not in vars(kind):
        return
    original = vars(kind)[name]

    def method(self: Any, *args: Any) -> Tensor:
        called.append(f"{self.name}.{name}")
        return checked(self, original, *args)

    monkeypatch.setattr(kind, name, method)


def _checked_delta(
    self: Any, original: Callable[..., Tensor], tensors: Mapping[str, Tensor], source: Tensor
) -> Tensor:
    delta = original(self, tensors, source)
    if isinstance(self, Prefix):
        keys, values = tensors["keys"], tensors["values"]
        kv_heads, _, head_dim = keys.shape
        assert values.shape == keys.shape
        assert source.shape[0] == TEXTS
        assert source.shape[1] % kv_heads == 0, "query heads"
        assert source.shape[2:] == (TOKENS, head_dim)
        assert delta.shape == source.shape
    elif self.name == "constant":
        assert delta.ndim == 1
    else:
        assert source.shape[:2] == delta.shape[:2] == (TEXTS, TOKENS)
        if self.is_projection and "down" in tensors:
            assert (source.shape[2],) == tensors["down"].shape[:1]
            assert (delta.shape[2],) == tensors["up"].shape[1:]
    return delta


def _checked_compose(
    self: Any,
    original: Callable[..., Tensor],
    tensors: Mapping[str, Tensor],
    h: Tensor,
    delta: Tensor,
    context: CompositionContext,
) -> Tensor:
    composed = original(self, tensors, h, delta, context)
    assert h.shape[:2] == (TEXTS, TOKENS)
    assert composed.shape == h.shape
    assert composed.dtype == h.dtype
    assert delta.shape == h.shape or delta.shape == h.shape[-1:]
    if self.reads_source:
        assert context.source.shape[:2] == (TEXTS, TOKENS)
    if context.weight is not None:
        assert context.weight().shape[1:] == h.shape[2:], "[d_source, d_h]"
    return composed


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_sources_deltas_and_states_have_the_axes_that_docstrings_name(
    family: str, seen: list[str]
) -> None:
    backbone = backbone_of(family)
    for name in POINT_NAMES:
        if refusal(family, name) is None:
            # Unfused, so that forms do not add Δh themselves.
            with attach(backbone, point(name, backbone.shapes), fused=False):
                backbone.model(**inputs(family))
    assert {"linear.delta", "relu.delta", "swiglu.delta", "vera.delta", "prefix.delta"} <= set(seen)
    assert {"kronecker.delta", "prefix_relu.delta", "loreft.delta"} <= set(seen)
    assert {"dora.compose", "sigmoid_gate.compose", "tanh_gate.compose"} <= set(seen)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_attention_has_the_axes_that_attend_names(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, calls = backbone_of(family), []
    shape = backbone.shapes.attention[0]
    # Grouped queries have a function of their own under a mask, from some torch on.
    grouped = shape.kv_heads < shape.heads and attention.GROUPS_BESIDE_MASKS
    name = "_grouped" if grouped else "sdpa_attention_forward"
    inner = getattr(attention, name)

    def checked(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        length = TOKENS + 16  # the method's prefix of 16 vectors stands before the tokens
        assert query.shape == (TEXTS, shape.heads, TOKENS, shape.head_dim)
        assert key.shape == value.shape == (TEXTS, shape.kv_heads, length, shape.head_dim)
        assert mask is not None
        assert mask.shape == (TEXTS, 1, TOKENS, length)
        heads, _ = inner(module, query, key, value, mask, **options)
        assert heads.shape == (TEXTS, TOKENS, shape.heads, shape.head_dim)
        calls.append(module)
        return heads, None

    monkeypatch.setattr(attention, name, checked)
    with attach(backbone, point("prefix", backbone.shapes)):
        backbone.model(**inputs(family))
    assert len(calls) == len(backbone.shapes.attention)
