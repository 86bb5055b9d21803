"""What can be merged equals the stock model with edited weights, in every family.

Which rows of which matrix are a family's queries, keys, values and ffn projections is written here
by hand, fused layers included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import wrap
from peftsearch.design.composition import Add, Scaled
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Constant, Linear, Rescale
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import perturb
from support.stock import ENCODER_DECODERS, SIZES, backbone, batch, outputs, twin

Rows = list[int] | None
"""Output channels of the module; None for all."""

_BERT = {
    "attn.query": "encoder.layer.{}.attention.self.query",
    "attn.key": "encoder.layer.{}.attention.self.key",
    "attn.value": "encoder.layer.{}.attention.self.value",
    "attn.out": "encoder.layer.{}.attention.output.dense",
    "ffn.hidden": "encoder.layer.{}.intermediate.dense",
    "ffn.out": "encoder.layer.{}.output.dense",
}
_DEBERTA = _BERT | {
    f"attn.{part}": f"encoder.layer.{{}}.attention.self.{part}_proj"
    for part in ("query", "key", "value")
}
_DISTILBERT = {
    "attn.query": "transformer.layer.{}.attention.q_lin",
    "attn.key": "transformer.layer.{}.attention.k_lin",
    "attn.value": "transformer.layer.{}.attention.v_lin",
    "attn.out": "transformer.layer.{}.attention.out_lin",
    "ffn.hidden": "transformer.layer.{}.ffn.lin1",
    "ffn.out": "transformer.layer.{}.ffn.lin2",
}
_BART = {
    "attn.query": "layers.{}.ATTN.q_proj",
    "attn.key": "layers.{}.ATTN.k_proj",
    "attn.value": "layers.{}.ATTN.v_proj",
    "attn.out": "layers.{}.ATTN.out_proj",
    "ffn.hidden": "layers.{}.fc1",
    "ffn.out": "layers.{}.fc2",
}
_T5 = {
    "attn.query": "block.{}.layer.ATTN.q",
    "attn.key": "block.{}.layer.ATTN.k",
    "attn.value": "block.{}.layer.ATTN.v",
    "attn.out": "block.{}.layer.ATTN.o",
    "ffn.hidden": "block.{}.layer.LAST.DenseReluDense.wi",
    "ffn.out": "block.{}.layer.LAST.DenseReluDense.wo",
}
_T5_GATED = _T5 | {
    "ffn.hidden": "block.{}.layer.LAST.DenseReluDense.wi_1",
    "ffn.gate": "block.{}.layer.LAST.DenseReluDense.wi_0",
}
_LLAMA = {
    "attn.query": "layers.{}.self_attn.q_proj",
    "attn.key": "layers.{}.self_attn.k_proj",
    "attn.value": "layers.{}.self_attn.v_proj",
    "attn.out": "layers.{}.self_attn.o_proj",
    "ffn.hidden": "layers.{}.mlp.up_proj",
    "ffn.gate": "layers.{}.mlp.gate_proj",
    "ffn.out": "layers.{}.mlp.down_proj",
}
_THIRDS = {
    f"attn.{part}": list(range(32 * index, 32 * (index + 1)))
    for index, part in enumerate(("query", "key", "value"))
}
_BY_HEAD = {
    f"attn.{part}": [24 * head + 8 * index + i for head in range(4) for i in range(8)]
    for index, part in enumerate(("query", "key", "value"))
}
_GPT2 = dict.fromkeys(_THIRDS, "h.{}.attn.c_attn") | {
    "attn.out": "h.{}.attn.c_proj",
    "ffn.hidden": "h.{}.mlp.c_fc",
    "ffn.out": "h.{}.mlp.c_proj",
}
_NEOX = dict.fromkeys(_BY_HEAD, "layers.{}.attention.query_key_value") | {
    "attn.out": "layers.{}.attention.dense",
    "ffn.hidden": "layers.{}.mlp.dense_h_to_4h",
    "ffn.out": "layers.{}.mlp.dense_4h_to_h",
}
_PHI3 = dict.fromkeys(_THIRDS, "layers.{}.self_attn.qkv_proj") | {
    "attn.out": "layers.{}.self_attn.o_proj",
    "ffn.hidden": "layers.{}.mlp.gate_up_proj",
    "ffn.gate": "layers.{}.mlp.gate_up_proj",
    "ffn.out": "layers.{}.mlp.down_proj",
}
_FALCON = dict.fromkeys(_THIRDS, "h.{}.self_attention.query_key_value") | {
    "attn.out": "h.{}.self_attention.dense",
    "ffn.hidden": "h.{}.mlp.dense_h_to_4h",
    "ffn.out": "h.{}.mlp.dense_4h_to_h",
}


def _channels(*heads: int) -> list[int]:
    """Of heads of 8 channels."""
    return [8 * head + channel for head in heads for channel in range(8)]


_ONE_KEY = {
    "attn.query": _channels(0, 1, 2, 3),
    "attn.key": _channels(4),
    "attn.value": _channels(5),
}
_TWO_GROUPS = {
    "attn.query": _channels(0, 1, 4, 5),
    "attn.key": _channels(2, 6),
    "attn.value": _channels(3, 7),
}
_MODERNBERT = dict.fromkeys(_THIRDS, "layers.{}.attn.Wqkv") | {
    "attn.out": "layers.{}.attn.Wo",
    "ffn.hidden": "layers.{}.mlp.Wi",
    "ffn.gate": "layers.{}.mlp.Wi",
    "ffn.out": "layers.{}.mlp.Wo",
}
MODULES = {
    **dict.fromkeys(("bert", "roberta", "electra"), _BERT),
    "distilbert": _DISTILBERT,
    "modernbert": _MODERNBERT,
    **dict.fromkeys(("bart", "mbart", "marian", "pegasus"), _BART),
    "opt": {place: f"decoder.{path.replace('ATTN', 'self_attn')}" for place, path in _BART.items()},
    "t5": _T5,
    "t5-gated": _T5_GATED,
    "gpt2": _GPT2,
    "gpt_neox": _NEOX,
    "gpt_neox-serial": _NEOX,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"), _LLAMA),
    "phi3": _PHI3,
    **dict.fromkeys(("falcon", "falcon-11b", "falcon-40b", "falcon-rw"), _FALCON),
    **dict.fromkeys(("deberta", "deberta-own", "deberta-c2p", "deberta-plain"), _DEBERTA),
}
ROWS: dict[str, dict[str, list[int]]] = {
    "gpt2": _THIRDS,
    "gpt_neox": _BY_HEAD,
    "gpt_neox-serial": _BY_HEAD,
    "falcon": _ONE_KEY,
    "falcon-11b": _TWO_GROUPS,
    "falcon-40b": _TWO_GROUPS,
    "falcon-rw": _BY_HEAD,
    "phi3": {
        "attn.query": _channels(0, 1, 2, 3),
        "attn.key": _channels(4, 5),
        "attn.value": _channels(6, 7),
        "ffn.gate": list(range(48)),
        "ffn.hidden": list(range(48, 96)),
    },
    # the first half passes the activation, the second is what it gates
    "modernbert": _THIRDS | {"ffn.gate": list(range(48)), "ffn.hidden": list(range(48, 96))},
}
CASES = [(name, place) for name in SIZES for place in MODULES[name]]


def where(name: str, site: str) -> tuple[str, Rows]:
    """`layers.3.attn.query@cross` → the module's path, and which of its outputs."""
    _, number, place = site.split(".", 2)
    place, _, cross = place.partition("@")
    path, layer = MODULES[name][place], int(number)
    if name in ENCODER_DECODERS:
        in_decoder = layer >= 2
        layer -= 2 * in_decoder
        t5 = name.startswith("t5")
        attention = ("1.EncDecAttention" if cross else "0.SelfAttention") if t5 else ""
        attention = attention or ("encoder_attn" if cross else "self_attn")
        last = "2" if in_decoder else "1"
        path = path.replace("ATTN", attention).replace("LAST", last)
        path = f"{'decoder' if in_decoder else 'encoder'}.{path}"
    return path.format(layer), ROWS.get(name, {}).get(place)


def matrix(module: nn.Module) -> Tensor:
    """A view (in, out) of a linear layer's weight."""
    weight = module.get_parameter("weight")
    return weight if isinstance(module, Conv1D) else weight.T


def tuned_and_sites(
    name: str, configuration: Configuration
) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    ours = backbone(name)
    with attach(ours, configuration) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        sites: dict[str, dict[str, Tensor]] = {}
        for key, tensor in attachment.tensors.items():
            _, site, part = key.split("/")
            sites.setdefault(site, {})[part] = tensor.detach()
        return outputs(ours.model, batch(name)), sites


def close(tuned: Tensor, merged: nn.Module, name: str) -> None:
    """Through the same attention function: a soft-capped stock one computes in single precision."""
    expected = outputs(wrap(merged).model, batch(name))
    assert (tuned - expected).abs().max() <= 1e-11 * expected.abs().max().clamp(min=1)
    assert (tuned - outputs(backbone(name).model, batch(name))).abs().max() > 1e-3


def at(form: Any, place: str, insertion: Insertion, s: float = 1, r: int | None = None) -> Any:
    composition = Scaled(s) if s != 1 else Add()
    return Configuration((Modification(form, Place.parse(place), insertion, composition, r),))


@pytest.mark.parametrize(("name", "place"), CASES)
def test_lora_equals_the_model_with_merged_weights(name: str, place: str) -> None:
    insertion = Parallel("projection_input" if place.endswith("out") else "sublayer_input")
    tuned, sites = tuned_and_sites(name, at(Linear(), place, insertion, 2, 3))
    merged = twin(name)
    for site, t in sites.items():
        path, rows = where(name, site)
        w = matrix(merged.get_submodule(path))
        w[:, rows if rows is not None else slice(None)] += 2 * t["down"] @ t["up"]
    assert len(sites) == len(Place.parse(place).sites(backbone(name).shapes))
    close(tuned, merged, name)


@pytest.mark.parametrize("name", SIZES)
def test_ia3_equals_the_model_with_rescaled_weights(name: str) -> None:
    """Keys' and values' outputs, and the inputs of the ffn's last layer."""
    tuned, sites = tuned_and_sites(name, METHODS["ia3"].configuration())
    merged = twin(name)
    for site, t in sites.items():
        if "activated" in site:
            path, _ = where(name, site.replace("activated", "out"))
            matrix(merged.get_submodule(path)).mul_(t["l"][:, None])
            continue
        path, rows = where(name, site)
        module, channels = merged.get_submodule(path), rows if rows is not None else slice(None)
        matrix(module)[:, channels] *= t["l"]
        if getattr(module, "bias", None) is not None:
            module.get_parameter("bias")[channels] *= t["l"]
    close(tuned, merged, name)


RESCALED = ("attn.key", "attn.value", "attn.out", "ffn.out", "ffn.gate")


@pytest.mark.parametrize(("name", "place"), [case for case in CASES if case[1] in RESCALED])
def test_a_rescaling_of_a_projection_equals_rescaled_weights(name: str, place: str) -> None:
    tuned, sites = tuned_and_sites(name, at(Rescale(), place, Sequential()))
    merged = twin(name)
    for site, t in sites.items():
        path, rows = where(name, site)
        module, channels = merged.get_submodule(path), rows if rows is not None else slice(None)
        matrix(module)[:, channels] *= t["l"]
        if getattr(module, "bias", None) is not None:
            module.get_parameter("bias")[channels] *= t["l"]
    close(tuned, merged, name)


@contextmanager
def biased(model: nn.Module, name: str, sites: dict[str, dict[str, Tensor]]) -> Iterator[None]:
    """Vectors added to the outputs of linear layers, with or without a bias of their own."""
    handles = []
    for site, t in sites.items():
        path, rows = where(name, site)

        def add(m: Any, args: Any, out: Tensor, rows: Rows = rows, b: Tensor = t["bias"]) -> Tensor:
            out = out.clone()
            out[..., rows if rows is not None else slice(None)] += b
            return out

        handles.append(model.get_submodule(path).register_forward_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", SIZES)
def test_added_biases_are_added_to_every_linear_layer_but_keys_and_values(name: str) -> None:
    tuned, sites = tuned_and_sites(name, METHODS["added-biases"].configuration())
    places = {site.split(".", 2)[2].partition("@")[0] for site in sites}
    assert places == set(MODULES[name]) - {"attn.key", "attn.value"}
    model = backbone(name).model
    with biased(model, name, sites):
        expected = outputs(model, batch(name))
    assert (tuned - expected).abs().max() <= 1e-11 * expected.abs().max().clamp(min=1)


def test_a_constant_at_one_place_in_one_layer_is_a_bias_there() -> None:
    place = Place(("ffn.out",), (1,))
    tuned, sites = tuned_and_sites("llama", Configuration((Modification(Constant(), place),)))
    assert list(sites) == ["layers.1.ffn.out"]
    model = backbone("llama").model
    with biased(model, "llama", sites):
        assert (tuned - outputs(model, batch("llama"))).abs().max() <= 1e-12
