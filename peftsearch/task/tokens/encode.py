"""Tokenised examples as flat tensors, from which padded batches are cut."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftsearch.task.split import Split
from peftsearch.task.tokens.ragged import Ragged
from peftsearch.task.tokens.token_cache import Chunk, cached_tokens, tokenizer_hash
from peftsearch.task.tokens.transfer import to_device

__all__ = ["Encoded", "blank_of", "choose_max_length", "encode"]

_QUANTILE = 0.995
_MULTIPLE = 8


@dataclass(frozen=True)
class Encoded:
    """n tokenised examples: inputs, and as targets `labels` or `written`."""

    inputs: Ragged
    """Token ids of n texts, or pairs of texts."""
    types: Tensor | None
    """Token types of all inputs, `[total]` int8; None where the model is given none."""
    labels: Tensor
    """Label indices `[n]` int64, sets of labels `[n, labels]` int8, or numbers `[n]` float64;
    zeros where texts are written.
    """
    pad_id: int
    """Token id that fills inputs up."""
    written: Ragged | None = None
    """Token ids of n texts to be written, with the end of text; None for other targets."""
    truncated: int = 0
    """Number of examples that were cut to the length allowed."""
    again: Callable[[NDArray[np.int64]], Encoded] | None = field(
        default=None, repr=False, compare=False
    )
    """Tokenises some of the examples again, cut to the same length."""
    _whole: Encoded | None = field(default=None, repr=False, compare=False)
    _is_uncached: bool = field(default=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each example, input and written target, `[n]`."""
        own = self.inputs.lengths
        return own if self.written is None else own + self.written.lengths

    @property
    def tokens(self) -> tuple[Tensor, ...]:
        """All token ids that a model may be given, of inputs, targets and padding: each `[any]`."""
        written = () if self.written is None else (self.written.flat,)
        return (self.inputs.flat, *written, torch.tensor([self.pad_id]))

    @property
    def whole(self) -> Encoded:
        """The data set that these are the first examples of; itself if it was not cut."""
        return self if self._whole is None else self._whole

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the inputs: token ids, types and padding id."""
        digest = hashlib.sha256(f"{self.pad_id}".encode())
        for flat in (self.inputs.flat, self.inputs.offsets, self.types):
            if flat is not None:
                digest.update(np.ascontiguousarray(flat).data)
        return digest.hexdigest()

    def first(self, count: int | None) -> Encoded:
        """The first `count` examples; all for None."""
        if count is None or count >= len(self):
            return self
        inputs = self.inputs.first(count)
        return replace(
            self,
            inputs=inputs,
            types=None if self.types is None else self.types[: len(inputs.flat)],
            labels=self.labels[:count],
            written=None if self.written is None else self.written.first(count),
            _whole=self.whole,
        )

    def uncached(self) -> Encoded:
        """The same examples, but tokenised at every read, as by a data loader that
        holds texts.
        """
        return replace(self, _whole=self.whole, _is_uncached=True)

    def read(self, indices: NDArray[np.int64]) -> tuple[Encoded, NDArray[np.int64]]:
        """Tokenised data that hold the examples of `indices` (`[batch]`), and their indices there
        (`[batch]`).
        """
        if not self._is_uncached or self.again is None:
            return self, indices
        return self.again(indices), np.arange(len(indices))

    def batch(
        self,
        indices: NDArray[np.int64],
        device: torch.device | str = "cpu",
        left: bool = False,
    ) -> dict[str, Tensor]:
        """Model inputs on `device` by their keywords: `input_ids`, `attention_mask` and, where
        there are types, `token_type_ids`, each `[batch, tokens]` int64, padded to the longest.

        `indices`: `[batch]`. `left` pads on the left, as a decoder that generates needs.
        """
        data, own = self.read(indices)
        ids, mask = data.inputs.padded(own, self.pad_id, left)
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        if data.types is not None:
            types = Ragged(data.types, data.inputs.offsets)
            inputs["token_type_ids"] = types.padded(own, 0, left)[0]
        return {key: to_device(value, device) for key, value in inputs.items()}

    def labels_of(self, indices: NDArray[np.int64], device: torch.device | str = "cpu") -> Tensor:
        """Targets of `indices` on `device`: `[batch]` label indices or numbers, or
        `[batch, labels]` 0 and 1.
        """
        return to_device(self.labels[torch.from_numpy(indices)], device)


def encode(split: Split, tokenizer: Any, max_length: int, type_rows: int | None = None) -> Encoded:
    """Tokenise texts with their labels or numbers, cutting examples to `max_length` tokens (a
    pair's longer text first).

    `type_rows` is the number of token types that the model has rows for; all types are left out if
    any is beyond them. A text without tokens becomes a single end-of-text token. Returns n examples
    for a split of n, without `written`.
    """
    blank = blank_of(tokenizer)

    def make(first: int, end: int) -> Chunk:
        part = split.between(first, end)
        tokens = _tokens(part, tokenizer, max_length)
        columns = {"inputs": [ids or [blank] for ids in tokens["input_ids"]]}
        # Single texts have one type throughout, which is what a model assumes when told none.
        if split.pairs is not None and "token_type_ids" in tokens:
            columns["types"] = [types or [0] for types in tokens["token_type_ids"]]
        return Chunk(columns, _truncated(part, tokens["input_ids"], tokenizer, max_length))

    def key() -> dict[str, Any]:
        own = {"texts": split.digest(with_targets=False), "max_length": max_length}
        if not tokenizer("")["input_ids"]:
            own["blank"] = blank
        return own | {"tokenizer": tokenizer_hash(tokenizer)}

    columns, truncated = cached_tokens(len(split), make, key)
    return Encoded(
        inputs=columns["inputs"],
        types=_known_types(columns.get("types"), type_rows),
        labels=torch.from_numpy(np.array(split.targets)),
        pad_id=int(tokenizer.pad_token_id or 0),  # masked: any id does where there is none
        truncated=truncated,
        again=lambda indices: encode(split.take(indices), tokenizer, max_length, type_rows),
    )


def blank_of(tokenizer: Any) -> int:
    """The token that stands for a text without tokens: end of text, or another special token."""
    names = ("eos", "sep", "bos", "cls", "pad")
    found = (getattr(tokenizer, f"{name}_token_id", None) for name in names)
    return int(next((i for i in found if i is not None), 0))


def _known_types(types: Ragged | None, rows: int | None) -> Tensor | None:
    """Token types that the model has rows for, or None. RoBERTa has one row, and GPT-2 takes types
    for tokens, while a tokenizer made for BERT tells both texts of a pair apart.
    """
    if types is None or (rows is not None and len(types.flat) and int(types.flat.max()) >= rows):
        return None
    return types.flat


def _tokens(split: Split, tokenizer: Any, max_length: int) -> Any:
    if not len(split):
        return {"input_ids": []}
    texts = [list(split.texts)] + ([list(split.pairs)] if split.pairs is not None else [])
    return tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=False)


def _truncated(split: Split, tokens: list[list[int]], tokenizer: Any, max_length: int) -> int:
    """Number of examples that were cut: those longer than `max_length`."""
    full = split.take([row for row, ids in enumerate(tokens) if len(ids) == max_length])
    longer = _tokens(full, tokenizer, max_length + 1)["input_ids"]
    return sum(len(ids) > max_length for ids in longer)


def choose_max_length(lengths: NDArray[np.int64], limit: int) -> int:
    """The 99.5th percentile of the lengths (`[n]`, in tokens), rounded up to a multiple of 8, at
    most `limit`.
    """
    wanted = float(np.quantile(lengths, _QUANTILE))
    return min(limit, math.ceil(wanted / _MULTIPLE) * _MULTIPLE)
