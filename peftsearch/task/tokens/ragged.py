"""Rows of different lengths, laid end to end: how tokens lie in memory or on the disk."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Ragged"]


@dataclass(frozen=True)
class Ragged:
    """n rows: `flat` (total,) may be mapped from a file; `offsets` (n + 1,)."""

    flat: Tensor
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], dtype: torch.dtype = torch.int32) -> Ragged:
        """From lists."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        flat = np.fromiter(itertools.chain.from_iterable(rows), np.int64, int(lengths.sum()))
        return cls(torch.from_numpy(flat).to(dtype), np.concatenate([[0], np.cumsum(lengths)]))

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """Rows of several, one after the other."""
        if len(parts) == 1:
            return parts[0]
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(
            torch.cat([part.flat for part in parts]), np.concatenate([[0], np.cumsum(lengths)])
        )

    @classmethod
    def end_to_end(cls, first: Ragged, second: Ragged) -> Ragged:
        """Each row of `first` with the same row of `second` after it."""
        lengths = first.lengths + second.lengths
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        flat = torch.empty(int(offsets[-1]), dtype=first.flat.dtype)
        for part, begins in ((first, offsets[:-1]), (second, offsets[:-1] + first.lengths)):
            moved = np.repeat(begins - part.offsets[:-1], part.lengths)
            flat[torch.from_numpy(np.arange(int(part.offsets[-1])) + moved)] = part.flat
        return cls(flat, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items of each row."""
        return np.diff(self.offsets)

    def row(self, index: int) -> Tensor:
        """One row."""
        return self.flat[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def first(self, count: int) -> Ragged:
        """The first `count` rows."""
        offsets = self.offsets[: count + 1]
        return Ragged(self.flat[: int(offsets[-1])], offsets)

    def padded(
        self, indices: NDArray[np.int64], padding: int, left: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Rows filled up to the longest (batch, longest) int64, and the mask of what is theirs."""
        starts = torch.from_numpy(self.offsets[indices])
        lengths = torch.from_numpy(self.offsets[indices + 1] - self.offsets[indices])[:, None]
        longest = int(lengths.max()) if len(lengths) else 0
        columns = torch.arange(longest)
        if left:
            columns = columns - (longest - lengths)
        mask = (columns >= 0) & (columns < lengths)
        where = (starts[:, None] + columns)[mask]
        filled = torch.full(mask.shape, padding, dtype=torch.int64)
        filled[mask] = self.flat[where].long()
        return filled, mask
