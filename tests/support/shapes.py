"""Shapes of small models on the meta device, from public configuration classes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from transformers import AutoConfig

from peftsearch.backbone.loading.load import shapes_of
from peftsearch.design.shapes import BackboneShapes

_ENCODER: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
_SEQ2SEQ: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
_T5: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 3,
    "num_heads": 4,
    "feed_forward_proj": "relu",
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "bert": _ENCODER,
    "deberta-v2": _ENCODER,
    "bart": _SEQ2SEQ,
    "mbart": _SEQ2SEQ,
    "pegasus": _SEQ2SEQ,
    "t5": _T5,
    "gpt2": {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4},
    "gpt_neox": _ENCODER,
    "llama": {**_ENCODER, "num_key_value_heads": 2},
    "qwen2": {**_ENCODER, "num_key_value_heads": 2},
    "olmo": _ENCODER,
    "ernie": _ENCODER,
    "mamba": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2},
}


def config_of(model_type: str, **options: Any) -> Any:
    return AutoConfig.for_model(model_type, **{**_OPTIONS[model_type], **options})


@lru_cache(maxsize=32)
def small(model_type: str) -> BackboneShapes:
    """Three layers (three and three), d=32, 4 heads, d_ff=48 (GPT-2: 128)."""
    return shapes_of(config_of(model_type))
