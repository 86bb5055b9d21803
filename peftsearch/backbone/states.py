"""Computing the last hidden states of the body, for all families."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from peftsearch.backbone.backbone import Backbone
from peftsearch.backbone.loading.language import shifted

__all__ = ["last_states"]


def last_states(
    backbone: Backbone,
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """The last hidden states [batch, tokens, hidden] of token ids, mask and types, each [batch,
    tokens]; of an encoder-decoder the decoder's, which reads the same text.
    """
    options: dict[str, Any] = {}
    if token_type_ids is not None:
        options["token_type_ids"] = token_type_ids
    if backbone.shapes.is_causal:
        options["use_cache"] = False  # nothing is generated from these keys and values
    if backbone.family.is_encoder_decoder:
        # The decoder reads the text too, one place later, as in BART's own classification.
        padding = backbone.tokenizer.pad_token_id or 0
        options["decoder_input_ids"] = shifted(backbone.model.config, input_ids, padding)
        options["decoder_attention_mask"] = attention_mask
    states: Tensor = backbone.model(
        input_ids=input_ids, attention_mask=attention_mask, **options
    ).last_hidden_state
    return states
