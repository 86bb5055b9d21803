"""Generation with a language model: greedy or with beams, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig

from peftsearch.task.spec import Generation
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.encode_texts import Writing
from peftsearch.training.batches import evaluation_batches
from peftsearch.training.positions import Positions

__all__ = ["generate", "generation_config", "settings_of"]

EncoderContext = Callable[[Encoded, NDArray[np.int64]], AbstractContextManager[None]]

_TOKENS = 8192
"""Padded tokens a batch, counting those to be generated, and every beam."""


@torch.inference_mode()
def generate(
    lm: Any,
    data: Encoded,
    writing: Writing,
    asked: Generation,
    max_tokens: int,
    encoder_context: EncoderContext | None = None,
    positions: Positions = Positions(),  # noqa: B008 (frozen)
    before_batch: Callable[[], None] = lambda: None,
) -> list[str]:
    """The generated text of each example, in their order. `encoder_context`: the context in which
    an encoder reads a batch; `positions`: those that the attached configuration adds to each text;
    `before_batch` is called before each batch, and may raise.

    A decoder's prompts are padded on the left, so that generation starts at the same index in all
    texts of a batch. Of the model's own generation settings only its special tokens count, which
    `writing` holds.
    """
    config = generation_config(writing, asked, max_tokens)
    written: list[str] = [""] * len(data)
    # A text without a prompt is read as one token (`_never_empty`).
    read = positions.effective_lengths(data.inputs.lengths.clip(min=1))
    lengths = (read + config.max_new_tokens) * asked.beams
    for indices in evaluation_batches(lengths, _TOKENS):
        before_batch()
        inputs = _never_empty(data.batch(indices, lm.device, left=writing.is_decoder), writing)
        own = encoder_context(data, indices) if encoder_context else nullcontext()
        with own, _without_own_settings(lm):
            found = lm.generate(**inputs, generation_config=config)
        begins = inputs["input_ids"].shape[1] if writing.is_decoder else 0
        for index, ids in zip(indices.tolist(), found[:, begins:].tolist(), strict=True):
            written[index] = writing.decode(ids)
    return written


def _never_empty(inputs: dict[str, Any], writing: Writing) -> dict[str, Any]:
    """Inputs [batch, tokens] in which a text without a prompt has one token, the end of text: it is
    generated as after another text.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    if not ids.shape[1]:
        ids, mask = ids.new_zeros(len(ids), 1), mask.new_zeros(len(mask), 1)
    place = torch.arange(ids.shape[1], device=ids.device) == (
        ids.shape[1] - 1 if writing.is_decoder else 0
    )
    blank = ~mask.bool().any(1, keepdim=True) & place
    return inputs | {
        "input_ids": ids.masked_fill(blank, writing.blank),
        "attention_mask": mask.masked_fill(blank, 1),
    }


def generation_config(writing: Writing, asked: Generation, max_tokens: int) -> GenerationConfig:
    """The generation settings that replace the model's own."""
    return GenerationConfig(**settings_of(writing, asked, max_tokens))


def settings_of(writing: Writing, asked: Generation, max_tokens: int) -> dict[str, Any]:
    """Special tokens and generation settings, under transformers' names."""
    wanted: dict[str, Any] = {
        "do_sample": False,
        "num_beams": asked.beams,
        "max_new_tokens": asked.max_tokens or max_tokens,
        "min_new_tokens": asked.min_tokens or None,
        "no_repeat_ngram_size": asked.no_repeat_ngram or None,
        "length_penalty": asked.length_penalty if asked.beams > 1 else None,
        "early_stopping": True if asked.beams > 1 else None,
        "use_cache": True,
        "decoder_start_token_id": None if writing.is_decoder else writing.start_id,
        "forced_bos_token_id": None if writing.is_decoder else writing.first_id,
        "eos_token_id": list(writing.all_ends) or None,
        "pad_token_id": writing.padding_id,
        "suppress_tokens": [writing.padding_id] if writing.never_padding else None,
    }
    return {key: value for key, value in wanted.items() if value is not None}


@contextmanager
def _without_own_settings(lm: Any) -> Iterator[None]:
    """Hide the model's own generation settings: transformers fills in from them whatever `generate`
    is given as None, or not given at all.
    """
    own, lm.generation_config = lm.generation_config, GenerationConfig()
    try:
        yield
    finally:
        lm.generation_config = own
