"""Ragged arrays: rows of different lengths end to end, as tokens lie in memory and on disk."""

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
    """n rows of different lengths; row i is `flat[offsets[i] : offsets[i + 1]]`."""

    flat: Tensor
    """`[total]`, int32 token ids or int8 token types; may be mapped from a file."""
    offsets: NDArray[np.int64]
    """`[n + 1]`, from 0 to the total."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], dtype: torch.dtype = torch.int32) -> Ragged:
        """The rows of n lists, as `dtype`."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        flat = np.fromiter(itertools.chain.from_iterable(rows), np.int64, int(lengths.sum()))
        return cls(torch.from_numpy(flat).to(dtype), np.concatenate([[0], np.cumsum(lengths)]))

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of all parts, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(
            torch.cat([part.flat for part in parts]), np.concatenate([[0], np.cumsum(lengths)])
        )

    @classmethod
    def end_to_end(cls, first: Ragged, second: Ragged) -> Ragged:
        """n rows, each the row of `first` followed by the one of `second`."""
        lengths = first.lengths + second.lengths
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        flat = torch.empty(int(offsets[-1]), dtype=first.flat.dtype)
        for part, begins in ((first, offsets[:-1]), (second, offsets[:-1] + first.lengths)):
            # How far each item moves, so that a million rows are scattered without a Python loop.
            moved = np.repeat(begins - part.offsets[:-1], part.lengths)
            flat[torch.from_numpy(np.arange(int(part.offsets[-1])) + moved)] = part.flat
        return cls(flat, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of items of each row, `[n]`."""
        return np.diff(self.offsets)

    def row(self, index: int) -> Tensor:
        """One row, `[its length]`, a view of `flat`."""
        return self.flat[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def first(self, count: int) -> Ragged:
        """The first `count` rows; `flat` is a view."""
        offsets = self.offsets[: count + 1]
        return Ragged(self.flat[: int(offsets[-1])], offsets)

    def padded(
        self, indices: NDArray[np.int64], padding: int, left: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The rows of `indices` (`[batch]`), filled up with `padding` to the longest of them.

        Returns `[batch, longest]` int64 and the mask `[batch, longest]` bool, True where an item is
        a row's own. `left` puts the padding first.
        """
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
