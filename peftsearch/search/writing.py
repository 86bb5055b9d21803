"""Settings for reading and generating texts with a backbone, and notes on them for the user."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from peftsearch.backbone.language import decoder_inputs
from peftsearch.backbone.load import Backbone
from peftsearch.backbone.special_tokens import special_tokens
from peftsearch.task.encode_texts import Writing
from peftsearch.task.spec import TaskSpec

__all__ = ["notes_on_ends", "writing_of"]


def writing_of(backbone: Backbone, spec: TaskSpec) -> Writing:
    """Settings for reading and generating a task's texts: templates and special tokens, the same in
    training and generation.
    """
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
        # BERT's tokenizers name no end, and close every text with [SEP].
        writing = replace(writing, end_id=writing.closing[0])
    return writing if writing.is_decoder else replace(writing, start_id=_start(backbone, writing))


def _start(backbone: Backbone, writing: Writing) -> int:
    """The token that the decoder starts from in training. mBART starts from the last token of its
    target, whatever its config says.
    """
    (target,) = writing.write(["a"])
    padding = writing.padding_id
    first = decoder_inputs(backbone.lm, torch.tensor([target or [padding]]), padding)
    return int(first[0, 0])


def notes_on_ends(backbone: Backbone, writing: Writing) -> Iterator[str]:
    """Notes on models without an end-of-text token, or with one that is ignored here."""
    if writing.end_id is None:
        yield (
            f"'{backbone.name}' names no end of text, in its tokenizer or its settings: targets "
            "teach none, and every text is written up to its limit (--max-target)"
        )
    words = special_tokens(backbone.lm, backbone.target_tokenizer).plain_words
    if words:
        shown = ", ".join(repr(writing.target_tokenizer.decode([i])) for i in words)
        yield (
            f"{shown} is an end of text by the settings of '{backbone.name}', and a plain word of "
            "its tokenizer: texts go on after it"
        )
