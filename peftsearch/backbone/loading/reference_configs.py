"""Configurations of well-known models, one or two a family, as their public values.

They are enough where only shapes are needed: `--model config:bart-large` needs no download.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from peftsearch.backbone.loading.source import PREFIX
from peftsearch.errors import MissingError, did_you_mean

__all__ = ["PREFIX", "REFERENCES", "reference_config"]


def _encoder(hidden: int, layers: int, heads: int, ffn: int, vocab: int, **more: Any) -> Any:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        **more,
    }


def _decoder(
    hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int, **more: Any
) -> Any:
    return _encoder(hidden, layers, heads, ffn, vocab, num_key_value_heads=kv_heads, **more)


def _falcon(hidden: int, layers: int, heads: int, vocab: int, **more: Any) -> Any:
    return _encoder(hidden, layers, heads, 4 * hidden, vocab, **more)


def _seq2seq(d: int, layers: int, heads: int, ffn: int, vocab: int, **more: Any) -> Any:
    sides = {
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in (("layers", layers), ("attention_heads", heads), ("ffn_dim", ffn))
    }
    return {"d_model": d, "vocab_size": vocab, **sides, **more}


_ROBERTA = {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
_DEBERTA_V3 = {
    "relative_attention": True,
    "position_buckets": 256,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_T5 = {"vocab_size": 32128, "d_model": 768, "d_kv": 64, "num_layers": 12, "num_heads": 12}

REFERENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "minilm-l6": ("bert", _encoder(384, 6, 12, 1536, 30522)),
    "bert-base": ("bert", _encoder(768, 12, 12, 3072, 30522)),
    "roberta-base": ("roberta", _encoder(768, 12, 12, 3072, 50265, **_ROBERTA)),
    "xlm-roberta-base": ("xlm-roberta", _encoder(768, 12, 12, 3072, 250002, **_ROBERTA)),
    "electra-small": ("electra", _encoder(256, 12, 4, 1024, 30522, embedding_size=128)),
    "distilbert-base": (
        "distilbert",
        {"dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "vocab_size": 30522},
    ),
    "deberta-v3-base": ("deberta-v2", _encoder(768, 12, 12, 3072, 128100, **_DEBERTA_V3)),
    "modernbert-base": ("modernbert", _encoder(768, 22, 12, 1152, 50368)),
    "bart-large": ("bart", _seq2seq(1024, 12, 16, 4096, 50265)),
    "mbart-large": ("mbart", _seq2seq(1024, 12, 16, 4096, 250027)),
    "opus-mt-en-de": ("marian", _seq2seq(512, 6, 8, 2048, 58101, pad_token_id=58100)),
    "pegasus-large": ("pegasus", _seq2seq(1024, 16, 16, 4096, 96103)),
    "t5-base": ("t5", {**_T5, "d_ff": 3072, "feed_forward_proj": "relu"}),
    "t5-v1_1-base": ("t5", {**_T5, "d_ff": 2048, "feed_forward_proj": "gated-gelu"}),
    "gpt2": ("gpt2", {}),
    "pythia-160m": ("gpt_neox", _encoder(768, 12, 12, 3072, 50304)),
    "opt-125m": (
        "opt",
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072}
        | {"vocab_size": 50272, "word_embed_proj_dim": 768, "max_position_embeddings": 2048},
    ),
    "llama-3.2-1b": ("llama", _decoder(2048, 16, 32, 8, 8192, 128256, head_dim=64)),
    "mistral-7b": ("mistral", _decoder(4096, 32, 32, 8, 14336, 32000)),
    "qwen2-0.5b": ("qwen2", _decoder(896, 24, 14, 2, 4864, 151936)),
    "qwen3-0.6b": ("qwen3", _decoder(1024, 28, 16, 8, 3072, 151936, head_dim=128)),
    "gemma-2b": ("gemma", _decoder(2048, 18, 8, 1, 16384, 256000, head_dim=256)),
    "gemma-2-2b": ("gemma2", _decoder(2304, 26, 8, 4, 9216, 256000, head_dim=256)),
    "phi-3-mini": ("phi3", _decoder(3072, 32, 32, 32, 8192, 32064)),
    "falcon-7b": ("falcon", _falcon(4544, 32, 71, 65024)),
    "falcon-40b": (
        "falcon",
        _falcon(8192, 60, 128, 65024, num_kv_heads=8, new_decoder_architecture=True),
    ),
    "falcon-rw-1b": (
        "falcon",
        _falcon(2048, 24, 32, 50304, multi_query=False, parallel_attn=False, alibi=True, bias=True),
    ),
}
"""Name → (model type, configuration values that are not the type's defaults)."""


def reference_config(name: str) -> Any:
    """The transformers config of a well-known model; MissingError names the nearest one."""
    name = name.removeprefix(PREFIX)
    if name not in REFERENCES:
        raise MissingError(f"'{PREFIX}{name}' unknown{did_you_mean(name, REFERENCES)}")
    model_type, options = REFERENCES[name]
    return AutoConfig.for_model(model_type, **options)
