"""How a backbone reads and writes the texts of a task, and what the user should know of it."""

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
    """How a language model reads and writes the texts of a task: training and writing begin and end
    them with the same tokens.
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
    """What the decoder begins with in training: mBART's with the end of its target, whatever its
    config says.
    """
    (target,) = writing.write(["a"])
    padding = writing.padding_id
    first = decoder_inputs(backbone.lm, torch.tensor([target or [padding]]), padding)
    return int(first[0, 0])


def notes_on_ends(backbone: Backbone, writing: Writing) -> Iterator[str]:
    """What the user is told where a text has no end, or another one than the model's settings
    say.
    """
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
