"""Labelled texts in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Split"]


@dataclass(frozen=True)
class Split:
    """Texts (with second texts for pairs) and labels (n,), indices into the task's label names."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def inputs(self) -> list[tuple[str, str]]:
        """What a model is given of each example: its text and its second text, if any."""
        return list(zip(self.texts, self.pairs or ("",) * len(self), strict=True))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Split:
        """A subset, in the order of `indices`."""
        chosen = [int(i) for i in indices]
        pairs = None if self.pairs is None else tuple(self.pairs[i] for i in chosen)
        return Split(tuple(self.texts[i] for i in chosen), pairs, self.labels[chosen])

    def sample(self, count: int | None, seed: int) -> Split:
        """A fixed random subset of at most `count` examples, in their order."""
        if count is None or count >= len(self):
            return self
        chosen = np.random.default_rng(seed).permutation(len(self))[:count]
        return self.take(np.sort(chosen))

    def shuffled(self, seed: int) -> Split:
        """The same examples in a fixed random order, so that the first n are a fair subset."""
        return self.take(np.random.default_rng(seed).permutation(len(self)))
