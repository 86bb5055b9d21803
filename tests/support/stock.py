"""Tiny random models just as transformers makes them, and the same weights as a backbone of ours.

Paths of a model's own modules are written out here by hand: `backbone/families.py` is what they
check.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from peftsearch.backbone.loading.load import Backbone, wrap

VOCABULARY = 60
_BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 40,
    "decoder_start_token_id": 2,
}
_T5 = {"d_model": 32, "d_kv": 10, "num_heads": 4, "d_ff": 48, "num_layers": 2}
_LLAMA = _BERT | {"num_key_value_heads": 2, "pad_token_id": 0}
_GEMMA = _LLAMA | {"head_dim": 10}
_FALCON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_hidden_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
_FALCON_40B = _FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}
_DEBERTA = _BERT | {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
}

SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", _BERT),
    "roberta": ("roberta", _BERT),
    "electra": ("electra", _BERT | {"embedding_size": 24}),
    "distilbert": (
        "distilbert",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40},
    ),
    # layer 0 attends globally, layers 1 and 2 to two tokens on each side
    "modernbert": (
        "modernbert",
        _BERT
        | {"num_hidden_layers": 3, "local_attention": 4, "global_attn_every_n_layers": 3}
        | dict.fromkeys(("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id"), 2)
        | {"pad_token_id": 0},
    ),
    "bart": ("bart", _BART),
    "mbart": ("mbart", _BART),
    "marian": ("marian", _BART | {"pad_token_id": 1}),
    "pegasus": ("pegasus", _BART),
    "t5": ("t5", _T5 | {"feed_forward_proj": "relu"}),
    "t5-gated": ("t5", _T5 | {"feed_forward_proj": "gated-gelu"}),
    "gpt2": (
        "gpt2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 40}
        | {"bos_token_id": 2, "eos_token_id": 2},
    ),
    "gpt_neox": ("gpt_neox", _BERT | {"rotary_pct": 0.25}),
    "gpt_neox-serial": ("gpt_neox", _BERT | {"rotary_pct": 0.5, "use_parallel_residual": False}),
    "opt": (
        "opt",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 40,
        },
    ),
    "llama": ("llama", _LLAMA),
    "mistral": ("mistral", _LLAMA | {"sliding_window": 4}),
    "qwen2": ("qwen2", _LLAMA),
    "qwen3": ("qwen3", _LLAMA | {"head_dim": 10}),
    "gemma": ("gemma", _GEMMA),
    "gemma2": ("gemma2", _GEMMA | {"sliding_window": 7, "query_pre_attn_scalar": 7}),
    "gemma3": ("gemma3_text", _GEMMA | {"sliding_window": 7, "query_pre_attn_scalar": 7}),
    "phi3": ("phi3", _LLAMA | {"sliding_window": 4}),
    "falcon": ("falcon", _FALCON),
    "falcon-11b": ("falcon", _FALCON_40B | {"num_ln_in_parallel_attn": 1}),
    "falcon-40b": ("falcon", _FALCON_40B),
    "falcon-rw": (
        "falcon",
        _FALCON | {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
    ),
    "deberta": ("deberta-v2", _DEBERTA | {"pos_att_type": ["p2c", "c2p"], "share_att_key": True}),
    "deberta-own": ("deberta-v2", _DEBERTA | {"pos_att_type": ["p2c", "c2p"]}),
    "deberta-c2p": ("deberta-v2", _DEBERTA | {"pos_att_type": ["c2p"]}),
    "deberta-plain": ("deberta-v2", _BERT),
}
"""Name → model type and sizes; head_dim is 8, 10 where it need not be hidden / heads."""

WITH_PREFIX = tuple(name for name in SIZES if not name.startswith(("deberta", "falcon")))
ENCODER_DECODERS = ("bart", "mbart", "marian", "pegasus", "t5", "t5-gated")


@lru_cache(maxsize=64)
def stock(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The model, with weights, biases and norms that are all far from zero, one and each other."""
    model_type, sizes = SIZES[name]
    config = AutoConfig.for_model(model_type, vocab_size=VOCABULARY, **sizes)
    model = AutoModel.from_config(config).to(dtype).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.2 * noise if parameter.ndim > 1 else parameter + 0.2 * noise)
    return model.requires_grad_(False)


def twin(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A copy of its own to change."""
    return copy.deepcopy(stock(name, dtype))


@lru_cache(maxsize=64)
def backbone(name: str, dtype: torch.dtype = torch.float64) -> Backbone:
    """The same weights as a backbone; shared, so tests must detach what they attach."""
    return wrap(twin(name, dtype), name)


def batch(name: str) -> dict[str, Tensor]:
    """Three texts of 9, 6 and 3 tokens, padded on the right, and targets of 7 where there are any.

    Ids are above the special ones: nothing is padding but what the mask says.
    """
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VOCABULARY, (3, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([9, 6, 3])[:, None]).long()
    inputs = {"input_ids": ids, "attention_mask": mask}
    if name in ENCODER_DECODERS:
        inputs["decoder_input_ids"] = torch.randint(5, VOCABULARY, (3, 7), generator=generator)
    return inputs


def outputs(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Last hidden states where they mean something: padding is set to zero."""
    with torch.no_grad():
        states: Tensor = model(**inputs).last_hidden_state
    return real(states, inputs)


def real(states: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """`states` with those of padding set to zero; a decoder's are all real."""
    if "decoder_input_ids" in inputs:
        return states
    return states * inputs["attention_mask"].unsqueeze(-1)


@dataclass(frozen=True)
class Paths:
    """Where one model keeps the linear layers of a layer, by place."""

    layers: str
    attention: str
    projections: tuple[str, str, str, str]
    ffn: tuple[str, str]
    gate: str = ""
    cross: str = ""
    decoder: str = ""
    decoder_ffn: tuple[str, str] | None = None


PATHS = {
    "bert": Paths(
        "encoder.layer",
        "attention",
        ("self.query", "self.key", "self.value", "output.dense"),
        ("intermediate.dense", "output.dense"),
    ),
    "bart": Paths(
        "encoder.layers",
        "self_attn",
        ("q_proj", "k_proj", "v_proj", "out_proj"),
        ("fc1", "fc2"),
        cross="encoder_attn",
        decoder="decoder.layers",
    ),
    "t5": Paths(
        "encoder.block",
        "layer.0.SelfAttention",
        ("q", "k", "v", "o"),
        ("layer.1.DenseReluDense.wi", "layer.1.DenseReluDense.wo"),
        cross="layer.1.EncDecAttention",
        decoder="decoder.block",
        decoder_ffn=("layer.2.DenseReluDense.wi", "layer.2.DenseReluDense.wo"),
    ),
    "llama": Paths(
        "layers",
        "self_attn",
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        ("mlp.up_proj", "mlp.down_proj"),
        gate="mlp.gate_proj",
    ),
    "gpt2": Paths(
        "h", "attn", ("c_attn", "c_attn", "c_attn", "c_proj"), ("mlp.c_fc", "mlp.c_proj")
    ),
}
_PROJECTIONS = {"query": 0, "key": 1, "value": 2, "out": 3}


def module_path(name: str, key: str) -> str:
    """`layers.3.attn.query@cross` → the path of the linear layer in the stock model."""
    paths = PATHS[name]
    _, number, place = key.split(".", 2)
    place, _, cross = place.partition("@")
    layer, in_decoder = int(number), bool(paths.decoder) and int(number) >= 2
    stack = f"{paths.decoder}.{layer - 2}" if in_decoder else f"{paths.layers}.{layer}"
    sublayer, what = place.split(".")
    if sublayer == "attn":
        module = paths.cross if cross else paths.attention
        return f"{stack}.{module}.{paths.projections[_PROJECTIONS[what]]}"
    if what == "gate":
        return f"{stack}.{paths.gate}"
    ffn = paths.decoder_ffn if in_decoder and paths.decoder_ffn else paths.ffn
    return f"{stack}.{ffn[what != 'hidden']}"
