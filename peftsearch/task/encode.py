"""Texts → tokens, once: flat tensors that batches are cut from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftsearch.task.text import Split

__all__ = ["Encoded", "choose_max_length", "encode"]

_QUANTILE = 0.995
_MULTIPLE = 8


@dataclass(frozen=True)
class Encoded:
    """n tokenised examples, laid end to end.

    `input_ids` (total tokens,) int32; `token_type_ids` likewise int8 or None; `offsets` (n + 1,);
    `labels` (n,) int64; `pad_id` fills batches up; `truncated` counts examples that were cut.
    """

    input_ids: Tensor
    token_type_ids: Tensor | None
    offsets: NDArray[np.int64]
    labels: Tensor
    pad_id: int
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example."""
        return np.diff(self.offsets)

    def batch(
        self, indices: NDArray[np.int64], device: torch.device | str = "cpu"
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs padded to the longest, (batch, seq) each, and labels (batch,)."""
        starts = torch.from_numpy(self.offsets[indices])
        lengths = torch.from_numpy(self.lengths[indices])
        columns = torch.arange(int(lengths.max()))
        mask = columns < lengths[:, None]
        where = (starts[:, None] + columns)[mask]
        inputs = {
            "input_ids": self._filled(self.input_ids, mask, where, self.pad_id),
            "attention_mask": mask.long(),
        }
        if self.token_type_ids is not None:
            inputs["token_type_ids"] = self._filled(self.token_type_ids, mask, where, 0)
        labels = self.labels[torch.from_numpy(indices)]
        return {key: value.to(device) for key, value in inputs.items()}, labels.to(device)

    @staticmethod
    def _filled(flat: Tensor, mask: Tensor, where: Tensor, padding: int) -> Tensor:
        padded = torch.full(mask.shape, padding, dtype=torch.int64)
        padded[mask] = flat[where].long()
        return padded


def encode(split: Split, tokenizer: Any, max_length: int) -> Encoded:
    """Tokenise a split, cutting examples to `max_length` tokens (a pair's longer text first)."""
    tokens = _tokens(split, tokenizer, max_length)
    lengths = np.array([len(ids) for ids in tokens["input_ids"]], np.int64)
    # Single texts have one type throughout, which is what a model assumes when it is told none.
    types = tokens.get("token_type_ids") if split.pairs is not None else None
    return Encoded(
        input_ids=_flat(tokens["input_ids"], torch.int32),
        token_type_ids=None if types is None else _flat(types, torch.int8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=torch.from_numpy(split.labels.copy()),
        pad_id=int(tokenizer.pad_token_id or 0),  # masked: any id does where there is none
        truncated=_count_longer(
            split.take(np.flatnonzero(lengths == max_length)), tokenizer, max_length
        ),
    )


def _tokens(split: Split, tokenizer: Any, max_length: int) -> Any:
    texts = [list(split.texts)] + ([list(split.pairs)] if split.pairs is not None else [])
    return tokenizer(*texts, truncation=True, max_length=max_length, return_attention_mask=False)


def _count_longer(full: Split, tokenizer: Any, max_length: int) -> int:
    """How many examples that fill `max_length` would go on if one more token had room."""
    if len(full) == 0:
        return 0
    return sum(
        len(ids) > max_length for ids in _tokens(full, tokenizer, max_length + 1)["input_ids"]
    )


def _flat(rows: list[list[int]], dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.concatenate([np.asarray(row, np.int64) for row in rows])).to(dtype)


def choose_max_length(lengths: NDArray[np.int64], limit: int) -> int:
    """The 99.5th percentile of the lengths, rounded up to a multiple of 8, at most `limit`."""
    wanted = float(np.quantile(lengths, _QUANTILE))
    return min(limit, math.ceil(wanted / _MULTIPLE) * _MULTIPLE)
