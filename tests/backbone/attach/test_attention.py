"""The attention function on its own: masks, grouped queries, large logits, other precisions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations import sdpa_attention

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.attention import (
    AttachedPrefix,
    attach_prefix,
    attend,
    detach_prefix,
)
from peftsearch.design.composition import Add, Composition, Gated, Scaled
from peftsearch.design.form import Prefix
from support.families import TINY, backbone_of, states
from support.families import inputs as inputs_of
from support.perturbed import distance

pytestmark = pytest.mark.internals

B, H, S, D, L = 3, 4, 7, 5, 3


class Attention(nn.Module):
    """The attributes that `attend` reads of an attention module."""

    is_causal = False

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


def attached(composition: Composition, tensors: Mapping[str, Tensor]) -> AttachedPrefix:
    """A prefix whose composition reads nothing of the sub-layer's input."""
    return AttachedPrefix(Prefix(), composition, lambda: tensors)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def padding() -> Tensor:
    """Boolean (batch, 1, seq, seq): True where a token may be attended to."""
    lengths = torch.tensor([S, 4, 1])
    return (torch.arange(S) < lengths[:, None])[:, None, None].expand(B, 1, S, S)


MASKS = {
    "unpadded": None,
    "boolean": padding(),
    "additive": torch.zeros(B, 1, S, S, dtype=torch.float64).masked_fill(~padding(), -math.inf),
}


@pytest.fixture(params=[1, 2, 4], ids=lambda g: f"groups={g}")
def module(request: pytest.FixtureRequest) -> Iterator[Attention]:
    module = Attention(request.param)
    yield module
    detach_prefix(module)


def inputs(module: Attention) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    kv = H // module.num_key_value_groups
    q, k, v = random(B, H, S, D, seed=1), random(B, kv, S, D, seed=2), random(B, kv, S, D, seed=3)
    return q, k, v, {"keys": random(kv, L, D, seed=4), "values": random(kv, L, D, seed=5)}


def spread(module: Attention, *tensors: Tensor) -> list[Tensor]:
    """Key-value heads repeated for the query heads of their group."""
    return [t.repeat_interleave(module.num_key_value_groups, dim=-3) for t in tensors]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("scaling", [None, 1.0])
def test_without_a_prefix_it_is_plain_attention(
    mask: str, scaling: float | None, module: Attention
) -> None:
    q, k, v, _ = inputs(module)
    heads, _ = attend(module, q, k, v, MASKS[mask], scaling=scaling)
    plain = scaled_dot_product_attention(q, *spread(module, k, v), MASKS[mask], scale=scaling)
    assert (heads - plain.transpose(1, 2)).abs().max() < 1e-12


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("scaling", [None, 1.0])
def test_the_gate_of_equation_8_for_each_head_and_token(
    mask: str, scaling: float | None, module: Attention
) -> None:
    q, k, v, prefix = inputs(module)
    attach_prefix(module, attached(Gated(), prefix))
    heads, _ = attend(module, q, k, v, MASKS[mask], scaling=scaling)

    k, v, keys, values = spread(module, k, v, prefix["keys"], prefix["values"])
    scale = D**-0.5 if scaling is None else scaling
    visible = padding() if MASKS[mask] is not None else torch.ones(B, 1, S, S, dtype=torch.bool)
    expected = torch.zeros(B, S, H, D, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            for token in range(S):
                seen = visible[b, 0, token]
                of_tokens = (q[b, h, token] @ k[b, h, seen].T * scale).exp()
                of_prefix = (q[b, h, token] @ keys[h].T * scale).exp()
                gate = of_prefix.sum() / (of_prefix.sum() + of_tokens.sum())
                base = of_tokens / of_tokens.sum() @ v[b, h, seen]
                delta = of_prefix / of_prefix.sum() @ values[h]
                expected[b, token, h] = (1 - gate) * base + gate * delta
    assert (heads - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("scaling", [None, 1.0])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    ("composition", "s"), [(Add(), 1.0), (Scaled(3.0), 3.0), (Scaled("learned"), 0.7)]
)
def test_an_ungated_prefix_is_attention_over_the_prefix_alone_added(
    mask: str, scaling: float | None, composition: Composition, s: float, module: Attention
) -> None:
    q, k, v, prefix = inputs(module)
    tensors = prefix | {"s": torch.full((1,), s, dtype=torch.float64)}
    plain, _ = attend(module, q, k, v, MASKS[mask], scaling=scaling)
    attach_prefix(module, attached(composition, tensors))
    heads, _ = attend(module, q, k, v, MASKS[mask], scaling=scaling)
    keys, values = spread(module, prefix["keys"], prefix["values"])
    delta = torch.einsum(
        "bhtl,hld->bthd",
        torch.einsum("bhtd,hld->bhtl", q * (scaling or D**-0.5), keys).softmax(-1),
        values,
    )
    assert (heads - (plain + s * delta)).abs().max() <= 1e-12


@pytest.mark.parametrize("composition", [Gated(), Add()])
def test_logits_too_large_for_exp_give_no_nan(composition: Composition) -> None:
    module = Attention(1)
    q, k, v, prefix = inputs(module)
    prefix = {"keys": prefix["keys"] * 1e4, "values": prefix["values"]}
    attach_prefix(module, attached(composition, prefix))
    heads, _ = attend(module, q, k, v, padding())
    assert heads.isfinite().all()


@pytest.mark.parametrize("composition", [Gated(), Add(), Scaled("learned")])
def test_a_prefix_in_fp32_stands_beside_attention_in_bf16(composition: Composition) -> None:
    module = Attention(1)
    q, k, v, prefix = inputs(module)
    tensors = {n: t.float().requires_grad_() for n, t in prefix.items()}
    attach_prefix(module, attached(composition, tensors | {"s": torch.ones(1)}))
    heads, _ = attend(module, q.bfloat16(), k.bfloat16(), v.bfloat16(), padding())
    assert heads.dtype == torch.bfloat16
    heads.float().pow(2).sum().backward()  # type: ignore[no-untyped-call]
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in tensors.values())


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("has_prefix", [False, True])
def test_grouped_queries_and_their_gradients_without_repeated_keys(
    mask: str,
    has_prefix: bool,
    softcap: float | None,
    module: Attention,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against keys and values repeated by hand, in a module of as many heads of each."""
    options = {} if softcap is None else {"softcap": softcap}
    q, k, v, prefix = inputs(module)
    given = [t.requires_grad_() for t in (q, k, v, *prefix.values())]
    if has_prefix:
        attach_prefix(module, attached(Gated(), prefix))
    if attention.GROUPS_BESIDE_MASKS:
        refuse = lambda *_: pytest.fail("keys are repeated")  # noqa: E731
        monkeypatch.setattr(sdpa_attention, "repeat_kv", refuse)
    heads, _ = attend(module, q, k, v, MASKS[mask], **options)
    found = torch.autograd.grad(heads.square().sum(), given, allow_unused=True)

    plain = Attention(1)
    if has_prefix:
        keys, values = spread(module, prefix["keys"], prefix["values"])
        attach_prefix(plain, attached(Gated(), {"keys": keys, "values": values}))
    expected_heads, _ = attend(plain, q, *spread(module, k, v), MASKS[mask], **options)
    expected = torch.autograd.grad(expected_heads.square().sum(), given, allow_unused=True)
    assert (heads - expected_heads).abs().max() <= 1e-12
    for own, other in zip(found, expected, strict=True):
        assert (own is None) == (other is None)
        if own is not None and other is not None:
            assert (own - other).abs().max() <= 1e-12 * other.abs().max()


@pytest.mark.parametrize("name", TINY)
def test_a_mask_that_nobody_reads_gives_the_same_states(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where asking whether anything is padded would wait for it."""
    backbone, batch = backbone_of(name), inputs_of(name)
    whole = {k: v[:1] for k, v in batch.items()}  # one text, which nothing pads
    with torch.no_grad():
        expected = [states(name, backbone, some) for some in (batch, whole)]
        monkeypatch.setattr(attention, "MASK_SKIP_DEVICES", ())
        found = [states(name, backbone, some) for some in (batch, whole)]
    for own, wanted in zip(found, expected, strict=True):
        assert distance(own, wanted) < 1e-12
