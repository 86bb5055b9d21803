"""One tiny random model a family: two layers (two and two), d=32, 4 heads, no dropout.

Names are those of the transformers model type, with what is special after a hyphen. The weights
are far from zero and from one another, so that nothing that a modification does can hide, and are
representable in bf16: every dtype holds the same model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

from peftsearch.backbone.loading.load import Backbone, wrap

__all__ = [
    "REFUSED",
    "TINY",
    "Tiny",
    "backbone_of",
    "generating",
    "inputs",
    "lm_inputs",
    "states",
    "tiny_body",
    "tiny_config",
    "tiny_lm",
]

VOCABULARY = 64
EOS = 63
Kind = Literal["encoder", "encoder-decoder", "decoder"]


@dataclass(frozen=True)
class Tiny:
    """A model type's smallest config with everything in it that matters to a modification."""

    row: str
    """The name of its row in the table of families, or what it is recognised as."""
    model_type: str
    kind: Kind
    sizes: Mapping[str, Any] = field(default_factory=dict)


_WIDTHS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
    "forced_eos_token_id": None,
}
_T5 = {"d_model": 32, "d_kv": 10, "d_ff": 48, "num_layers": 2, "num_heads": 4}
_OPT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "word_embed_proj_dim": 32,
    "max_position_embeddings": 128,
}
_DISTILBERT = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 128,
}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 128}
_GROUPED = _WIDTHS | {"num_key_value_heads": 2}
_WIDE_HEADS = _GROUPED | {"head_dim": 10}
_FALCON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_hidden_size": 48,
    "max_position_embeddings": 128,
}
_FALCON_40B = _FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}
_WINDOW = {"sliding_window": 6}
_LOCAL_AND_GLOBAL = {"layer_types": ["sliding_attention", "full_attention"], **_WINDOW}
_DEBERTA = {"relative_attention": True, "position_buckets": 8}
_DEBERTA_V3 = _DEBERTA | {
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
}


def _encoder(row: str, model_type: str, **sizes: Any) -> Tiny:
    return Tiny(row, model_type, "encoder", _WIDTHS | sizes)


def _seq2seq(row: str, model_type: str, sizes: Mapping[str, Any], **others: Any) -> Tiny:
    return Tiny(row, model_type, "encoder-decoder", {**sizes, **others})


def _decoder(row: str, model_type: str, sizes: Mapping[str, Any], **others: Any) -> Tiny:
    return Tiny(row, model_type, "decoder", {**sizes, **others})


TINY: dict[str, Tiny] = {
    "bert": _encoder("BERT", "bert"),
    "roberta": _encoder("RoBERTa", "roberta", pad_token_id=1),
    "xlm-roberta": _encoder("RoBERTa", "xlm-roberta", pad_token_id=1),
    "camembert": _encoder("RoBERTa", "camembert", pad_token_id=1),
    "electra": _encoder("ELECTRA", "electra", embedding_size=16),
    "distilbert": Tiny("DistilBERT", "distilbert", "encoder", _DISTILBERT),
    "deberta-v2": _encoder("DeBERTa-v2", "deberta-v2", **_DEBERTA_V3),
    "deberta-v2-own": _encoder("DeBERTa-v2", "deberta-v2", **_DEBERTA, pos_att_type=["p2c", "c2p"]),
    "deberta-v2-c2p": _encoder("DeBERTa-v2", "deberta-v2", **_DEBERTA, pos_att_type=["c2p"]),
    "modernbert": _encoder("ModernBERT", "modernbert", local_attention=4),
    "bart": _seq2seq("BART", "bart", _BART),
    "mbart": _seq2seq("mBART", "mbart", _BART),
    "marian": _seq2seq("Marian", "marian", _BART),
    "pegasus": _seq2seq("Pegasus", "pegasus", _BART),
    "t5": _seq2seq("T5", "t5", _T5, feed_forward_proj="relu"),
    "t5-gated": _seq2seq("T5, gated ffn", "t5", _T5, feed_forward_proj="gated-gelu"),
    "mt5": _seq2seq("T5, gated ffn", "mt5", _T5, feed_forward_proj="gated-gelu"),
    "gpt2": _decoder("GPT-2", "gpt2", _GPT2),
    "gpt_neox": _decoder("GPT-NeoX", "gpt_neox", _WIDTHS, use_parallel_residual=True),
    "gpt_neox-serial": _decoder(
        "GPT-NeoX, one sum each", "gpt_neox", _WIDTHS, use_parallel_residual=False
    ),
    "opt": _decoder("OPT", "opt", _OPT),
    "opt-post": _decoder("OPT, norm after", "opt", _OPT, do_layer_norm_before=False),
    "llama": _decoder("Llama", "llama", _GROUPED),
    "mistral": _decoder("Mistral", "mistral", _GROUPED, **_WINDOW),
    "qwen2": _decoder("Qwen2", "qwen2", _GROUPED),
    "qwen3": _decoder("Qwen3", "qwen3", _WIDE_HEADS),
    "gemma": _decoder("Gemma", "gemma", _WIDE_HEADS),
    "gemma2": _decoder("Gemma 2", "gemma2", _WIDE_HEADS, **_LOCAL_AND_GLOBAL),
    "gemma3_text": _decoder("Gemma 2", "gemma3_text", _WIDE_HEADS, **_LOCAL_AND_GLOBAL),
    "phi3": _decoder("Phi-3", "phi3", _GROUPED, **_WINDOW),
    "falcon": _decoder("Falcon", "falcon", _FALCON),
    "falcon-11b": _decoder("Falcon", "falcon", _FALCON_40B, num_ln_in_parallel_attn=1),
    "falcon-40b": _decoder("Falcon, two norms", "falcon", _FALCON_40B),
    "falcon-rw": _decoder(
        *("Falcon, one sum each", "falcon", _FALCON),
        multi_query=False,
        parallel_attn=False,
        alibi=True,
        bias=True,
    ),
    "falcon-rotary": _decoder(
        *("Falcon, one sum each", "falcon", _FALCON),
        multi_query=True,
        parallel_attn=False,
        bias=True,
    ),
    "ernie": _encoder("ernie (as BERT)", "ernie"),
    "m2m_100": _seq2seq("m2m_100 (as mBART)", "m2m_100", _BART),
    "olmo": _decoder("olmo (as Llama)", "olmo", _GROUPED),
    "granite": _decoder("granite (as Llama)", "granite", _GROUPED, residual_multiplier=0.7),
}
"""Every model type of every row, and four that are recognised by their layout."""

REFUSED: dict[str, Tiny] = {
    "mamba": _decoder("", "mamba", {"hidden_size": 32, "num_hidden_layers": 2}),
    "qwen3_moe": _decoder("", "qwen3_moe", _GROUPED, num_experts=4, moe_intermediate_size=16),
    "olmo2": _decoder("", "olmo2", _GROUPED),
    "gpt_bigcode": _decoder("", "gpt_bigcode", _GPT2, multi_query=False),
    "openai-gpt": _decoder("", "openai-gpt", _GPT2),
}
"""Without attention; experts in one tensor; norms elsewhere; and GPT-2's names for another order of
queries, keys and values, or for norms after the sum.
"""


def tiny_config(name: str) -> Any:
    """Its transformers config, with every kind of dropout at 0."""
    tiny = TINY.get(name) or REFUSED[name]
    special = {
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": EOS,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "decoder_start_token_id": 2,
    }
    config = AutoConfig.for_model(
        tiny.model_type, **{"vocab_size": VOCABULARY, **special, **tiny.sizes}
    )
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    return config


@cache
def tiny_body(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """The body alone, as `AutoModel` makes it."""
    return _weighted(AutoModel.from_config(tiny_config(name)), dtype)


@cache
def tiny_lm(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """The family's language model: it generates, unless it is an encoder."""
    auto = {
        "encoder": AutoModelForMaskedLM,
        "encoder-decoder": AutoModelForSeq2SeqLM,
        "decoder": AutoModelForCausalLM,
    }[TINY[name].kind]
    return _weighted(auto.from_config(tiny_config(name)), dtype)


def _weighted(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            value = 0.2 * noise if parameter.ndim > 1 else parameter + 0.1 * noise
            parameter.copy_(value.bfloat16())
    return model.to(dtype).eval()


@cache
def backbone_of(name: str, dtype: torch.dtype = torch.float64) -> Backbone:
    """The tiny body as a backbone; made once and shared, so tests must detach what they attach."""
    return wrap(tiny_body(name, dtype), name)


@cache
def generating(name: str) -> Backbone:
    """The body inside the tiny language model, which then generates with what is attached to it."""
    return wrap(tiny_lm(name).base_model, name)


def inputs(name: str) -> dict[str, Tensor]:
    """Texts of 9, 6 and 3 tokens; decoders have their padding on the left, others on the right.

    Encoder-decoders get 5 tokens to decode.
    """
    given = lm_inputs(name)
    if TINY[name].kind == "encoder-decoder":
        generator = torch.Generator().manual_seed(2)
        given["decoder_input_ids"] = torch.randint(5, EOS, (3, 5), generator=generator)
    return given


def lm_inputs(name: str) -> dict[str, Tensor]:
    """What generation begins with."""
    lengths = torch.tensor([9, 6, 3])[:, None]
    positions = torch.arange(9)
    left = TINY[name].kind == "decoder"
    mask = positions >= 9 - lengths if left else positions < lengths
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, EOS, (3, 9), generator=generator)
    padding = TINY[name].sizes.get("pad_token_id", 0)
    return {"input_ids": ids.where(mask, padding), "attention_mask": mask.long()}


def states(name: str, backbone: Backbone, batch: dict[str, Tensor]) -> Tensor:
    """Last hidden states (tokens, d) of the tokens that are no padding."""
    options = {} if TINY[name].kind == "encoder" else {"use_cache": False}
    output: Tensor = backbone.model(**batch, **options).last_hidden_state
    if TINY[name].kind == "encoder-decoder":
        return output.flatten(0, 1)
    return output[batch["attention_mask"].bool()]
