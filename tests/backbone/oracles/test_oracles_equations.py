"""Methods against the papers' equations, written out layer by layer from the frozen weights.

Encoder-decoders that norm after the sum (BART) and before the sub-layer (mBART), and decoders that
norm before (OPT, GPT-2). tests/backbone/oracles/test_oracles.py does the same for BERT.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from peftsearch.backbone.attach.attach import attach
from peftsearch.design.composition import Add
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Relu
from peftsearch.design.insertion import Parallel, Sequential
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import perturb
from support.stock import backbone, batch, outputs, real, stock

Site = dict[str, Tensor]
Equation = Callable[[Tensor, Tensor, Site], Tensor]
"""(x, h, tensors of the site) → the new h."""


def relu(v: Tensor, t: Site) -> Tensor:
    return (v @ t["down"]).clamp(min=0) @ t["up"]


def lora(v: Tensor, t: Site) -> Tensor:
    return v @ t["down"] @ t["up"]


# What He et al. 2022, Table 1, says of each method, by the representation that it changes.
EQUATIONS: dict[str, dict[str, Equation]] = {
    "head-only-mean": {},
    "houlsby": {
        "attn.out": lambda x, h, t: h + relu(h, t),
        "ffn.out": lambda x, h, t: h + relu(h, t),
    },
    "pfeiffer": {"residual.ffn": lambda x, h, t: h + relu(x, t)},
    "parallel-adapter-attn": {"attn.heads": lambda x, h, t: h + relu(x, t)},
    "parallel-adapter-ffn": {"ffn.out": lambda x, h, t: h + relu(x, t)},
    "scaled-parallel-adapter": {"ffn.out": lambda x, h, t: h + 4 * relu(x, t)},
    "scaled-pa-learned": {"ffn.out": lambda x, h, t: h + t["s"] * relu(x, t)},
    "pa-pa": {
        "attn.heads": lambda x, h, t: h + relu(x, t),
        "ffn.out": lambda x, h, t: h + relu(x, t),
    },
    "lora": {
        "attn.query": lambda x, h, t: h + 2 * lora(x, t),
        "attn.value": lambda x, h, t: h + 2 * lora(x, t),
    },
    "lora-ffn": {
        "ffn.hidden": lambda x, h, t: h + 4 * lora(x, t),
        "ffn.wide": lambda x, h, t: h + 4 * lora(x, t),
    },
    "prefix": {},
    "prefix-lora-ffn": {
        "ffn.hidden": lambda x, h, t: h + 4 * lora(x, t),
        "ffn.wide": lambda x, h, t: h + 4 * lora(x, t),
    },
    "mam": {"ffn.out": lambda x, h, t: h + 2 * relu(x, t)},
}
# `residual.*`: x is the vector that the adapter reads, LN(t) after and t before, h is t itself.
# `ffn.wide` is `ffn.out` with the d_ff-wide hidden state as x.


class Written:
    """A model in the making: applies a method's equations where they belong."""

    def __init__(self, equations: dict[str, Equation], tensors: dict[str, Tensor]) -> None:
        self.equations = equations
        self.sites: dict[str, Site] = {}
        for name, tensor in tensors.items():
            _, site, key = name.split("/")
            self.sites.setdefault(site, {})[key] = tensor.detach()

    def at(self, place: str, layer: int, x: Tensor, h: Tensor, kind: str = "") -> Tensor:
        name = place.replace("wide", "out").removesuffix(" from the stream")
        site = self.sites.get(f"layers.{layer}.{name}{kind}")
        if place not in self.equations:
            return h
        assert site is not None, place
        return self.equations[place](x, h, site)

    def attention(
        self,
        weights: dict[str, Any],
        layer: int,
        x: Tensor,
        states: Tensor,
        seen: Tensor,
        kind: str,
    ) -> Tensor:
        """The heads, concatenated, before W_o: 4 heads over `states`, prefix first if any."""
        q = self.at("attn.query", layer, x, weights["q"](x), kind)
        k = weights["k"](states)
        v = self.at("attn.value", layer, states, weights["v"](states), kind)
        q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in (q, k, v))
        prefix = self.sites.get(f"layers.{layer}.attn.heads{kind}", {})
        if "keys" in prefix:
            k = torch.cat((prefix["keys"].expand(len(k), -1, -1, -1), k), 2)
            v = torch.cat((prefix["values"].expand(len(v), -1, -1, -1), v), 2)
            first = torch.ones(*seen.shape[:-1], prefix["keys"].shape[1], dtype=torch.bool)
            seen = torch.cat((first, seen), -1)
        logits = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
        heads = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.at("attn.heads", layer, x, heads, kind)


def norm(module: Any, t: Tensor) -> Tensor:
    return layer_norm(t, t.shape[-1:], module.weight, module.bias, module.eps)


def causal(tokens: int) -> Tensor:
    return torch.ones(tokens, tokens, dtype=torch.bool).tril()[None, None]


def first_input(model: Any, layers: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Embeddings with positions: what the first layer reads."""
    seen: list[Tensor] = []
    handle = layers[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model(**inputs)
    handle.remove()
    return seen[0]


# -- BART: norms after the sums ----------------------------------------------------------------


def bart(model: Any, inputs: dict[str, Tensor], written: Written) -> Tensor:
    padding = inputs["attention_mask"].bool()[:, None, None]
    states = first_input(model, model.encoder.layers, inputs)
    for index, layer in enumerate(model.encoder.layers):
        states = _bart_self(layer, index, states, padding, written)
        states = _bart_ffn(layer, index, states, written)
    x = first_input(model, model.decoder.layers, inputs)
    for index, layer in enumerate(model.decoder.layers, len(model.encoder.layers)):
        x = _bart_self(layer, index, x, causal(x.shape[1]), written)
        a = _bart_attention(layer.encoder_attn, index, x, states, padding, written, "@cross")
        x = norm(layer.encoder_attn_layer_norm, x + a)
        x = _bart_ffn(layer, index, x, written)
    return x


def _bart_self(layer: Any, index: int, x: Tensor, seen: Tensor, written: Written) -> Tensor:
    a = _bart_attention(layer.self_attn, index, x, x, seen, written, "")
    return norm(layer.self_attn_layer_norm, x + a)


def _bart_attention(
    m: Any, index: int, x: Tensor, states: Tensor, seen: Tensor, written: Written, kind: str
) -> Tensor:
    weights = {"q": m.q_proj, "k": m.k_proj, "v": m.v_proj}
    a = m.out_proj(written.attention(weights, index, x, states, seen, kind))
    return written.at("attn.out", index, x, a, kind)


def _bart_ffn(layer: Any, index: int, x: Tensor, written: Written) -> Tensor:
    hidden = gelu(written.at("ffn.hidden", index, x, layer.fc1(x)))
    f = written.at("ffn.wide", index, hidden, layer.fc2(hidden))
    t = x + written.at("ffn.out", index, x, f)
    # Pfeiffer: LN(t + Δ(LN(t))), the same frozen norm twice
    t = written.at("residual.ffn", index, norm(layer.final_layer_norm, t), t)
    return norm(layer.final_layer_norm, t)


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_method_on_bart_equals_its_equations(name: str) -> None:
    compare("bart", METHODS[name].configuration(), EQUATIONS[name])


# -- OPT and GPT-2: norms before the sub-layers ------------------------------------------------


def opt(model: Any, inputs: dict[str, Tensor], written: Written) -> Tensor:
    stream = first_input(model, model.decoder.layers, inputs)
    seen = causal(stream.shape[1]) & inputs["attention_mask"].bool()[:, None, None]
    for index, layer in enumerate(model.decoder.layers):
        m, x = layer.self_attn, norm(layer.self_attn_layer_norm, stream)
        weights = {"q": m.q_proj, "k": m.k_proj, "v": m.v_proj}
        a = m.out_proj(written.attention(weights, index, x, x, seen, ""))
        t = stream + written.at("attn.out", index, x, a)
        t = written.at("residual.attn", index, t, t)
        x = norm(layer.final_layer_norm, t)
        hidden = written.at("ffn.hidden", index, x, layer.fc1(x)).clamp(min=0)
        f = written.at("ffn.wide", index, hidden, layer.fc2(hidden))
        t = t + written.at("ffn.out", index, x, f)
        stream = written.at("residual.ffn", index, t, t)
    return norm(model.decoder.final_layer_norm, stream)


def gpt2(model: Any, inputs: dict[str, Tensor], written: Written) -> Tensor:
    stream = first_input(model, model.h, inputs)
    seen = causal(stream.shape[1]) & inputs["attention_mask"].bool()[:, None, None]
    for index, layer in enumerate(model.h):
        x = norm(layer.ln_1, stream)
        # Conv1D keeps (in, out): queries, keys and values side by side
        matrices = zip(
            layer.attn.c_attn.weight.chunk(3, 1), layer.attn.c_attn.bias.chunk(3), strict=True
        )
        q, k, v = (lambda t, w=w, b=b: linear(t, w.T, b) for w, b in matrices)
        heads = written.attention({"q": q, "k": k, "v": v}, index, x, x, seen, "")
        a = heads @ layer.attn.c_proj.weight + layer.attn.c_proj.bias
        t = stream + written.at("attn.out", index, x, a)
        t = written.at("residual.attn", index, t, t)
        x = norm(layer.ln_2, t)
        hidden = x @ layer.mlp.c_fc.weight + layer.mlp.c_fc.bias
        hidden = gelu(written.at("ffn.hidden", index, x, hidden), approximate="tanh")
        f = hidden @ layer.mlp.c_proj.weight + layer.mlp.c_proj.bias
        f = written.at("ffn.wide", index, hidden, f)
        t = t + written.at("ffn.out", index, x, f)
        stream = written.at("residual.ffn", index, t, t)
    return norm(model.ln_f, stream)


BEFORE = {"opt": opt, "gpt2": gpt2}


@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.parametrize("model", BEFORE)
def test_a_method_where_norms_come_first_equals_its_equations(model: str, name: str) -> None:
    """Pfeiffer is t + Δ(t) there."""
    compare(model, METHODS[name].configuration(), EQUATIONS[name])


def compare(model: str, configuration: Configuration, equations: dict[str, Equation]) -> None:
    ours, inputs = backbone(model), batch(model)
    with attach(ours, configuration) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        tuned = outputs(ours.model, inputs)
        written = Written(equations, dict(attachment.tensors))
    with torch.no_grad():
        expected = real(WRITTEN[model](stock(model), inputs, written), inputs)
    assert (tuned - expected).abs().max() <= 1e-12 * expected.abs().max().clamp(min=1)
    if configuration.modifications:
        assert (tuned - outputs(stock(model), inputs)).abs().max() > 0.01


@pytest.mark.parametrize("model", BEFORE)
def test_an_adapter_on_both_sums_where_norms_come_first(model: str) -> None:
    both = tuple(
        Modification(Relu(), Place((place,)), Sequential(), Add(), 3)
        for place in ("residual.attn", "residual.ffn")
    )
    equations = dict.fromkeys(
        ("residual.attn", "residual.ffn"), EQUATIONS["pfeiffer"]["residual.ffn"]
    )
    compare(model, Configuration(both), equations)


# -- mBART: encoder and decoder, norms before, and a residual stream to read -------------------


def mbart(model: Any, inputs: dict[str, Tensor], written: Written) -> Tensor:
    padding = inputs["attention_mask"].bool()[:, None, None]
    stream = first_input(model, model.encoder.layers, inputs)
    for index, layer in enumerate(model.encoder.layers):
        stream = _mbart_self(layer, index, stream, padding, written)
        stream = _mbart_ffn(layer, index, stream, written)
    states = norm(model.encoder.layer_norm, stream)
    stream = first_input(model, model.decoder.layers, inputs)
    for index, layer in enumerate(model.decoder.layers, len(model.encoder.layers)):
        stream = _mbart_self(layer, index, stream, causal(stream.shape[1]), written)
        x = norm(layer.encoder_attn_layer_norm, stream)
        a = _mbart_attention(
            layer.encoder_attn, index, x, stream, states, padding, written, "@cross"
        )
        stream = _mbart_ffn(layer, index, stream + a, written)
    return norm(model.decoder.layer_norm, stream)


def _mbart_self(layer: Any, index: int, stream: Tensor, seen: Tensor, written: Written) -> Tensor:
    x = norm(layer.self_attn_layer_norm, stream)
    return stream + _mbart_attention(layer.self_attn, index, x, stream, x, seen, written, "")


def _mbart_attention(
    m: Any,
    index: int,
    x: Tensor,
    stream: Tensor,
    states: Tensor,
    seen: Tensor,
    written: Written,
    kind: str,
) -> Tensor:
    weights = {"q": m.q_proj, "k": m.k_proj, "v": m.v_proj}
    heads = written.attention(weights, index, x, states, seen, kind)
    heads = written.at("attn.heads from the stream", index, stream, heads, kind)
    return written.at("attn.out", index, x, m.out_proj(heads), kind)


def _mbart_ffn(layer: Any, index: int, stream: Tensor, written: Written) -> Tensor:
    x = norm(layer.final_layer_norm, stream)
    hidden = gelu(written.at("ffn.hidden", index, x, layer.fc1(x)))
    f = written.at("ffn.wide", index, hidden, layer.fc2(hidden))
    f = written.at("ffn.out from the stream", index, stream, written.at("ffn.out", index, x, f))
    t = stream + f
    return written.at("residual.ffn", index, t, t)


WRITTEN = BEFORE | {"mbart": mbart, "bart": bart}


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_method_on_mbart_equals_its_equations(name: str) -> None:
    compare("mbart", METHODS[name].configuration(), EQUATIONS[name])


@pytest.mark.parametrize("place", ["attn.heads", "ffn.out"])
def test_a_parallel_adapter_may_read_the_stream_before_its_norm(place: str) -> None:
    """As He et al.'s code does in mBART."""
    reads = Parallel("residual_stream")
    modification = Modification(Relu(), Place((place,)), reads, Add(), 3)
    equation = EQUATIONS["parallel-adapter-ffn"]["ffn.out"]
    compare("mbart", Configuration((modification,)), {f"{place} from the stream": equation})


# -- W_o absorbs --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", WRITTEN)
def test_a_parallel_adapter_before_w_o_is_one_after_it_with_the_product(model: str) -> None:
    """h W_o + ReLU(x W_d) (W_u W_o): the equation at attn.out with the product as up-projection."""
    ours = backbone(model)
    before = Modification(Relu(), Place(("attn.heads",)), Parallel(), Add(), 3)
    with attach(ours, Configuration((before,))) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        tuned = outputs(ours.model, batch(model))
        after = {}
        for name, tensor in attachment.tensors.items():
            name = name.replace("attn.heads", "attn.out")
            after[name] = tensor @ w_o(model, name) if name.endswith("up") else tensor
    with torch.no_grad():
        written = Written({"attn.out": lambda x, h, t: h + relu(x, t)}, after)
        expected = real(WRITTEN[model](stock(model), batch(model), written), batch(model))
    assert (tuned - expected).abs().max() <= 1e-12 * expected.abs().max().clamp(min=1)


def w_o(model: str, name: str) -> Tensor:
    """(heads, d) of the attention that a tensor's name is of."""
    body: Any = stock(model)
    layer = int(name.split("/")[1].split(".")[1])
    if model == "gpt2":
        return body.h[layer].attn.c_proj.weight  # type: ignore[no-any-return]
    if model == "opt":
        return body.decoder.layers[layer].self_attn.out_proj.weight.T  # type: ignore[no-any-return]
    block = body.encoder.layers[layer] if layer < 2 else body.decoder.layers[layer - 2]
    attention = block.encoder_attn if "@cross" in name else block.self_attn
    return attention.out_proj.weight.T  # type: ignore[no-any-return]
