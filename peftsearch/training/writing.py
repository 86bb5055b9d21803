"""Special tokens and templates of text tasks, from a backbone's tokenizers and settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from peftsearch.backbone.loading.language import decoder_inputs
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.loading.special_tokens import special_tokens
from peftsearch.task.spec import TaskSpec
from peftsearch.task.tokens.encode_texts import Writing

__all__ = ["end_of_text_notes", "writing_of"]


def writing_of(backbone: Backbone, spec: TaskSpec) -> Writing:
    """Tokenizers, template and special tokens of a text task, for training and for generation."""
    own = special_tokens(backbone.lm, backbone.target_tokenizer)
    writing = Writing(
        tokenizer=backbone.tokenizer,
        target_tokenizer=backbone.target_tokenizer,
        is_decoder=not backbone.family.is_encoder_decoder,
        template=spec.template,
        start_id=own.start if backbone.family.is_encoder_decoder else None,
        end_id=own.end,
        ends=own.ends,
        first_id=own.first,
        padding_id=own.padding,
        never_padding=own.never_padding,
    )
    if writing.end_id is None and writing.closing:
        # BERT's tokenizers name no end-of-text token, and close every text with [SEP].
        writing = replace(writing, end_id=writing.closing[0])
    return writing if writing.is_decoder else replace(writing, start_id=_start(backbone, writing))


def _start(backbone: Backbone, writing: Writing) -> int:
    """Id of the first token that the decoder reads in training. With mBART it is the last token of
    the target, whatever the config says.
    """
    (target,) = writing.write(["a"])
    padding = writing.padding_id
    first = decoder_inputs(backbone.lm, torch.tensor([target or [padding]]), padding)
    return int(first[0, 0])


def end_of_text_notes(backbone: Backbone, writing: Writing) -> Iterator[str]:
    """Sentences for the user: the model names no end of text, or one that is an ordinary word."""
    if writing.end_id is None:
        yield (
            f"'{backbone.name}' has no end-of-text token in its tokenizer or settings: the model "
            "learns none, and generates every text up to its limit (--max-target)"
        )
    words = special_tokens(backbone.lm, backbone.target_tokenizer).plain_words
    if words:
        shown = ", ".join(repr(writing.target_tokenizer.decode([i])) for i in words)
        yield (
            f"{shown} is an end of text in the settings of '{backbone.name}', but an ordinary "
            "token of its tokenizer: generation continues after it"
        )
