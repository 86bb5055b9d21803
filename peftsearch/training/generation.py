"""Writing texts with a language model: greedy or beams, in batches of similar length."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from peftsearch.task.encode import Encoded
from peftsearch.task.encode_texts import Writing
from peftsearch.task.spec import Generation
from peftsearch.training.batches import evaluation_batches
from peftsearch.training.positions import Positions

__all__ = ["generate", "generation_config"]

Reading = Callable[[Encoded, NDArray[np.int64]], AbstractContextManager[None]]

_TOKENS = 8192
"""Padded tokens a batch, those to be written and every beam among them."""


@torch.inference_mode()
def generate(
    lm: Any,
    data: Encoded,
    writing: Writing,
    asked: Generation,
    max_tokens: int,
    reading: Reading | None = None,
    positions: Positions = Positions(),  # noqa: B008 (frozen)
) -> list[str]:
    """What the model writes for each example, in their order; an encoder reads them in `reading`.
    `positions`: what the configuration that is attached adds to each text.

    A decoder's prompts are padded on the left, so that all texts go on from one place.
    """
    config = generation_config(lm, writing, asked, max_tokens)
    written: list[str] = [""] * len(data)
    read = positions.without_gradients(data.inputs.lengths)
    lengths = (read + config.max_new_tokens) * asked.beams
    for indices in evaluation_batches(lengths, _TOKENS):
        inputs = _never_empty(data.batch(indices, lm.device, left=writing.is_decoder), writing)
        with reading(data, indices) if reading else nullcontext():
            found = lm.generate(**inputs, generation_config=config)
        begins = inputs["input_ids"].shape[1] if writing.is_decoder else 0
        for index, ids in zip(indices.tolist(), found[:, begins:].tolist(), strict=True):
            written[index] = writing.decode(ids)
    return written


def _never_empty(inputs: dict[str, Any], writing: Writing) -> dict[str, Any]:
    """Texts without a prompt are written from the end of text, as after another one."""
    if inputs["input_ids"].shape[1]:
        return inputs
    start = torch.full((len(inputs["input_ids"]), 1), writing.end_id or 0)
    start = start.to(inputs["input_ids"].device)
    return {"input_ids": start, "attention_mask": torch.ones_like(start)}


def generation_config(lm: Any, writing: Writing, asked: Generation, max_tokens: int) -> Any:
    """The model's own special tokens, and how the user wants texts to be written."""
    config = copy.deepcopy(lm.generation_config)
    changes = {
        "do_sample": False,
        "num_beams": asked.beams,
        "max_new_tokens": asked.max_tokens or max_tokens,
        "min_new_tokens": asked.min_tokens or None,
        "no_repeat_ngram_size": asked.no_repeat_ngram or None,
        "length_penalty": asked.length_penalty if asked.beams > 1 else None,
        "early_stopping": asked.beams > 1,
        "use_cache": True,
        "return_dict_in_generate": False,
        **dict.fromkeys(("temperature", "top_p", "top_k", "max_length", "min_length")),
    }
    for key, value in changes.items():
        setattr(config, key, value)
    if config.eos_token_id is None:
        config.eos_token_id = writing.end_id
    if config.pad_token_id is None:
        config.pad_token_id = writing.tokenizer.pad_token_id
    if config.pad_token_id is None:
        eos = config.eos_token_id
        config.pad_token_id = eos[0] if isinstance(eos, list) else eos or 0
    return config
