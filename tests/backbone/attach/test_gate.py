"""The gated prefix inside every family's attention: equation 8 of He et al. 2022, written out.

A recorder around the attention function keeps the queries, keys and values that a family hands to
it, and the heads that come out. Which tokens a query may see, scales, position biases and soft caps
are written here from the families' definitions, not taken from what was handed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.attach.attention import (
    NAME,
    AttachedPrefix,
    attach_prefix,
    attend,
    detach_prefix,
)
from peftsearch.design.composition import Gated
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Prefix
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import perturb
from support.cached_steps import continued
from support.stock import ENCODER_DECODERS, WITH_PREFIX, backbone, batch

pytestmark = pytest.mark.internals

LENGTH = 3
DECODERS = tuple(
    "gpt2 gpt_neox gpt_neox-serial opt llama mistral qwen2 qwen3 gemma gemma2 gemma3 phi3".split()
)
T5 = ("t5", "t5-gated")


@dataclass
class Call:
    """One attention: who, with what, and the heads (batch, heads, queries, head_dim)."""

    module: nn.Module
    path: str
    q: Tensor
    k: Tensor
    v: Tensor
    heads: Tensor


@contextmanager
def recording(model: nn.Module) -> Iterator[list[Call]]:
    """Every attention of `model` while the context is open."""
    paths = {module: path for path, module in model.named_modules()}
    calls: list[Call] = []
    original = ALL_ATTENTION_FUNCTIONS[NAME]

    def recorder(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any
    ) -> Any:
        heads, weights = original(module, q, k, v, *args, **options)
        calls.append(Call(module, paths[module], q, k, v, heads.transpose(1, 2)))
        return heads, weights

    ALL_ATTENTION_FUNCTIONS.register(NAME, recorder)
    try:
        yield calls
    finally:
        ALL_ATTENTION_FUNCTIONS.register(NAME, original)


def layer_of(call: Call) -> int:
    found = re.search(r"\d+", call.path)
    assert found is not None
    return int(found.group())


def kind_of(name: str, call: Call) -> str:
    if "encoder_attn" in call.path or "EncDecAttention" in call.path:
        return "cross"
    return "dec_self" if "decoder" in call.path or name in DECODERS else "enc_self"


def prefix_of(name: str, call: Call, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """P_k and P_v for every query head: grouped queries share those of their group."""
    layer = layer_of(call)
    if name in ENCODER_DECODERS and call.path.startswith("decoder"):
        layer += 2
    suffix = "@cross" if kind_of(name, call) == "cross" else ""
    key = f"0/layers.{layer}.attn.heads{suffix}"
    groups = call.q.shape[1] // tensors[f"{key}/keys"].shape[0]
    keys, values = (tensors[f"{key}/{part}"] for part in ("keys", "values"))
    return keys.repeat_interleave(groups, 0), values.repeat_interleave(groups, 0)


def visible(name: str, call: Call, mask: Tensor) -> Tensor:
    """(batch, 1, queries, keys): which tokens a query may see.

    `mask` is the padding mask of the keys' side; queries are the last of the tokens so far.
    """
    total, queries = mask.shape[1], call.q.shape[2]
    seen = mask.bool()[:, None, None, :].expand(-1, 1, queries, -1)
    if kind_of(name, call) == "cross":
        return seen
    i = torch.arange(total - queries, total)[:, None]
    j = torch.arange(total)[None]
    if kind_of(name, call) == "dec_self":
        seen = seen & (j <= i)
    if name == "modernbert" and layer_of(call) % 3 != 0:
        seen = seen & ((i - j).abs() <= 4 // 2)
    if name in ("mistral", "phi3"):
        seen = seen & (i - j < 4)
    if (name == "gemma2" and layer_of(call) % 2 == 0) or name == "gemma3":  # its 6th is global
        seen = seen & (i - j < 7)
    return seen[..., total - call.k.shape[2] :]  # a sliding cache has forgotten the first tokens


def scale(name: str, call: Call) -> float:
    if name in T5 or name == "opt":  # T5 has none, OPT scales its queries before
        return 1.0
    return float((7 if name in ("gemma2", "gemma3") else call.q.shape[-1]) ** -0.5)


def position_bias(name: str, call: Call, model: Any) -> Tensor | float:
    """T5's, from the table in each stack's first layer: (1, heads, queries, keys)."""
    if name not in T5 or kind_of(name, call) == "cross":
        return 0.0
    stack = model.decoder if call.path.startswith("decoder") else model.encoder
    first = stack.block[0].layer[0].SelfAttention
    queries, keys = call.q.shape[2], call.k.shape[2]
    distance = torch.arange(keys)[None] - torch.arange(keys - queries, keys)[:, None]
    buckets = first._relative_position_bucket(
        distance,
        bidirectional=stack is model.encoder,
        num_buckets=first.relative_attention_num_buckets,
        max_distance=first.relative_attention_max_distance,
    )
    bias: Tensor = first.relative_attention_bias.weight[buckets].permute(2, 0, 1)
    return bias[None]


def capped(name: str, logits: Tensor) -> Tensor:
    return 50.0 * (logits / 50.0).tanh() if name == "gemma2" else logits


def equation_8(
    name: str, call: Call, prefix: tuple[Tensor, Tensor] | None, mask: Tensor, model: Any
) -> Tensor:
    """(1 − λ) softmax(q Kᵀ) V + λ softmax(q P_kᵀ) P_v with λ for each head and token."""
    groups = call.q.shape[1] // call.k.shape[1]
    k, v = (t.repeat_interleave(groups, 1) for t in (call.k, call.v))
    base = capped(name, call.q @ k.transpose(-1, -2) * scale(name, call))
    base = base + position_bias(name, call, model)
    base = base.exp() * visible(name, call, mask)
    h = base @ v / base.sum(-1, keepdim=True)
    if prefix is None:
        return h
    keys, values = prefix
    learned = capped(name, call.q @ keys.transpose(-1, -2) * scale(name, call)).exp()
    delta = learned @ values / learned.sum(-1, keepdim=True)
    gate = learned.sum(-1, keepdim=True)
    gate = gate / (gate + base.sum(-1, keepdim=True))
    return (1 - gate) * h + gate * delta


def concatenated(name: str, call: Call, prefix: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """One softmax over the prefix and the tokens that a query may see."""
    keys, values = (t.expand(len(call.q), -1, -1, -1) for t in prefix)
    groups = call.q.shape[1] // call.k.shape[1]
    k = torch.cat((keys, call.k.repeat_interleave(groups, 1)), 2)
    v = torch.cat((values, call.v.repeat_interleave(groups, 1)), 2)
    seen = nn.functional.pad(visible(name, call, mask), (LENGTH, 0), value=True)
    logits = capped(name, call.q @ k.transpose(-1, -2) * scale(name, call))
    return logits.masked_fill(~seen, -torch.inf).softmax(-1) @ v


def a_prefix(*kinds: str) -> Configuration:
    place = Place(("attn.heads",), kinds=kinds or None)
    return Configuration((Modification(Prefix(), place, composition=Gated(), width=LENGTH),))


def real_queries(name: str, call: Call, mask: Tensor) -> Tensor:
    """(batch, 1, queries, 1): those that are not padding."""
    queries = call.q.shape[2]
    if name in ENCODER_DECODERS and call.path.startswith("decoder"):
        return torch.ones(len(call.q), 1, queries, 1, dtype=torch.bool)
    return mask.bool()[:, None, -queries:, None]


def padding(name: str, call: Call, inputs: dict[str, Tensor]) -> Tensor:
    """The padding mask of the keys' side."""
    in_decoder = name in ENCODER_DECODERS and kind_of(name, call) == "dec_self"
    return torch.ones_like(inputs["decoder_input_ids"]) if in_decoder else inputs["attention_mask"]


def error(heads: Tensor, expected: Tensor, where: Tensor) -> float:
    return float(torch.where(where, heads - expected, 0.0).abs().max())


# -- every family ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_PREFIX)
def test_without_a_prefix_the_transcription_is_the_familys_attention(name: str) -> None:
    """So that what follows compares the prefix, and not a misread family."""
    model, inputs = backbone(name).model, batch(name)
    with torch.no_grad(), recording(model) as calls:
        model(**inputs)
    assert len(calls) == len(backbone(name).shapes.attention)
    for call in calls:
        mask = padding(name, call, inputs)
        expected = equation_8(name, call, None, mask, model)
        assert error(call.heads, expected, real_queries(name, call, mask)) <= 1e-12, call.path


@pytest.mark.parametrize("side", ["right", "left", "nowhere"])
@pytest.mark.parametrize("name", WITH_PREFIX)
def test_the_gated_prefix_is_equation_8_in_every_attention(name: str, side: str) -> None:
    """Unpadded texts reach some attentions without any mask, causal ones too."""
    model, inputs = backbone(name).model, batch(name)
    if side == "left":
        inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    if side == "nowhere":
        inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    with attach(backbone(name), a_prefix()) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        tensors = {n: p.detach() for n, p in attachment.tensors.items()}
        with recording(model) as calls:
            model(**inputs)
    assert len(calls) == len(tensors) // 2
    for call in calls:
        mask, prefix = padding(name, call, inputs), prefix_of(name, call, tensors)
        real = real_queries(name, call, mask)
        expected = equation_8(name, call, prefix, mask, model)
        assert error(call.heads, expected, real) <= 1e-12, call.path
        assert error(call.heads, equation_8(name, call, None, mask, model), real) > 1e-3


@pytest.mark.parametrize("name", [n for n in WITH_PREFIX if n not in T5])
def test_the_gated_prefix_is_attention_over_the_concatenation(name: str) -> None:
    """T5's position bias stands in the logits, too: equation 8 covers it above."""
    model, inputs = backbone(name).model, batch(name)
    with attach(backbone(name), a_prefix()) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        tensors = {n: p.detach() for n, p in attachment.tensors.items()}
        with recording(model) as calls:
            model(**inputs)
    for call in calls:
        mask, prefix = padding(name, call, inputs), prefix_of(name, call, tensors)
        expected = concatenated(name, call, prefix, mask)
        assert error(call.heads, expected, real_queries(name, call, mask)) <= 1e-12, call.path


@pytest.mark.parametrize("name", WITH_PREFIX)
def test_what_w_o_reads_is_what_attention_returned(name: str) -> None:
    """Nothing stands between the recorded heads and the rest of the model."""
    model, inputs = backbone(name).model, batch(name)
    read: list[Tensor] = []
    ends = ("o_proj", "out_proj", "SelfAttention.o", "EncDecAttention.o", "attn.c_proj")
    ends += ("attention.output.dense", "out_lin", "Wo", "attention.dense")
    outs = [m for n, m in model.named_modules() if n.endswith(ends) and "mlp" not in n]
    handles = [m.register_forward_pre_hook(lambda m, args: read.append(args[0])) for m in outs]
    with attach(backbone(name), a_prefix()), torch.no_grad(), recording(model) as calls:
        model(**inputs)
    for handle in handles:
        handle.remove()
    assert len(read) == len(calls) > 0
    for call, heads in zip(calls, read, strict=True):
        assert torch.equal(call.heads.transpose(1, 2).reshape(heads.shape), heads)


# -- with a cache ------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [True, False], ids=["with a mask", "without"])
@pytest.mark.parametrize("name", DECODERS)
def test_with_a_cache_every_step_is_equation_8_and_as_without(name: str, masked: bool) -> None:
    """Five tokens, then one, then three at once."""
    model = backbone(name).model
    ids = batch(name)["input_ids"]
    with attach(backbone(name), a_prefix()) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        tensors = {n: p.detach() for n, p in attachment.tensors.items()}
        whole = model(input_ids=ids, use_cache=False).last_hidden_state
        cache, parts, end = None, [], 0
        for step in (5, 1, 3):
            end += step
            with recording(model) as calls:
                mask = torch.ones(3, end, dtype=torch.long)
                out, cache = continued(
                    model,
                    cache,
                    input_ids=ids[:, end - step : end],
                    attention_mask=mask if masked else None,
                )
            parts.append(out.last_hidden_state)
            for call in calls:
                expected = equation_8(name, call, prefix_of(name, call, tensors), mask, model)
                assert call.q.shape[2] == step
                assert (call.heads - expected).abs().max() <= 1e-12, (call.path, step)
    assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-12


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_a_decoder_with_a_cache_is_equation_8_in_self_and_cross_attention(name: str) -> None:
    model, inputs = backbone(name).model, batch(name)
    ids, source = inputs.pop("decoder_input_ids"), inputs["attention_mask"]
    with attach(backbone(name), a_prefix()) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        tensors = {n: p.detach() for n, p in attachment.tensors.items()}
        whole = model(**inputs, decoder_input_ids=ids, use_cache=False).last_hidden_state
        encoded = (model.encoder(**inputs).last_hidden_state,)
        cache, parts, end = None, [], 0
        for step in (4, 1, 2):
            end += step
            with recording(model) as calls:
                out, cache = continued(
                    model,
                    cache,
                    encoder_outputs=encoded,
                    attention_mask=source,
                    decoder_input_ids=ids[:, end - step : end],
                )
            parts.append(out.last_hidden_state)
            assert {kind_of(name, call) for call in calls} == {"dec_self", "cross"}
            for call in calls:
                cross = kind_of(name, call) == "cross"
                mask = source if cross else torch.ones(3, end, dtype=torch.long)
                expected = equation_8(name, call, prefix_of(name, call, tensors), mask, model)
                assert (call.heads - expected).abs().max() <= 1e-12, (call.path, step)
    assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-12


# -- kinds of attention ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["enc_self", "dec_self", "cross"])
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_a_prefix_on_one_kind_of_attention_is_in_no_other(name: str, kind: str) -> None:
    model, inputs = backbone(name).model, batch(name)
    with attach(backbone(name), a_prefix(kind)) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        tensors = {n: p.detach() for n, p in attachment.tensors.items()}
        with recording(model) as calls:
            model(**inputs)
    assert len(tensors) == 2 * 2
    for call in calls:
        here = kind_of(name, call) == kind
        mask = padding(name, call, inputs)
        prefix = prefix_of(name, call, tensors) if here else None
        expected = equation_8(name, call, prefix, mask, model)
        assert error(call.heads, expected, real_queries(name, call, mask)) <= 1e-12, call.path


def test_new_queries_behind_cached_keys_see_those_and_the_prefix_without_any_mask() -> None:
    """Three new tokens after four in a cache: the mask that SDPA would imply is written out."""

    class Causal(nn.Module):
        is_causal = True
        num_key_value_groups = 1

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    generator, module = torch.Generator().manual_seed(2), Causal()
    q, k, v = random(2, 4, 3, 5), random(2, 4, 7, 5), random(2, 4, 7, 5)
    prefix = {"keys": random(4, LENGTH, 5), "values": random(4, LENGTH, 5)}
    attach_prefix(module, AttachedPrefix(Prefix(), Gated(), lambda: prefix, lambda: q))
    heads, _ = attend(module, q, k, v, None)
    detach_prefix(module)
    call = Call(module, "decoder.layers.0", q, k, v, heads.transpose(1, 2))
    mask = torch.ones(2, 7, dtype=torch.long)
    expected = equation_8("bart", call, (prefix["keys"], prefix["values"]), mask, None)
    assert (call.heads - expected).abs().max() <= 1e-12
