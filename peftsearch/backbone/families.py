"""Model families: one row each says where a family keeps its sub-layers.

This table is the only place that knows; nothing outside `backbone/` asks for a model type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peftsearch.errors import ConfigurationError

__all__ = ["FAMILIES", "Family", "family_of"]


@dataclass(frozen=True)
class Family:
    """Paths of one layer's modules; `layers` is relative to the model, the others to a layer."""

    name: str
    model_types: tuple[str, ...]
    layers: str
    query: str
    key: str
    value: str
    attention: str
    """The module the attention interface is called with."""
    attn_out: str
    attn_norm: str
    ffn_hidden: str
    ffn_out: str
    ffn_norm: str
    pooler: str | None = None
    """The pretrained pooler, relative to the model: its first child is the dense layer."""
    key_bias_dead: bool = True
    """Plain softmax attention: a bias on the keys gets no gradient."""
    positions_after_padding: bool = False
    """The position table keeps its first `pad_token_id + 1` rows for itself (fairseq's habit)."""


_BERT_LAYOUT: dict[str, Any] = {
    "layers": "encoder.layer",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention": "attention.self",
    "attn_out": "attention.output.dense",
    "attn_norm": "attention.output.LayerNorm",
    "ffn_hidden": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_norm": "output.LayerNorm",
    "pooler": "pooler",
}

FAMILIES: tuple[Family, ...] = (
    Family("BERT", ("bert",), **_BERT_LAYOUT),
    Family(
        "RoBERTa",
        ("roberta", "xlm-roberta", "camembert"),
        **_BERT_LAYOUT,
        positions_after_padding=True,
    ),
)


def family_of(model_type: str) -> Family:
    """The row for a config's model type, or a ConfigurationError that names those known."""
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(t for family in FAMILIES for t in family.model_types))
    raise ConfigurationError(
        f"model type '{model_type}' is not in the table of families; known: {known}. "
        "A new family is one row in peftsearch/backbone/families.py"
    )
