"""A split: texts with their targets, in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Split", "Targets"]

Targets = NDArray[np.int64] | NDArray[np.int8] | NDArray[np.float64] | Sequence[str]
"""Indices into the task's label names `[n]` int64, sets of labels as 0 and 1 `[n, labels]` int8,
numbers `[n]` float64, or n texts.
"""


@dataclass(frozen=True)
class Split:
    """n texts (with second texts for pairs) and their targets."""

    texts: Sequence[str]
    pairs: Sequence[str] | None
    targets: Targets

    def __len__(self) -> int:
        return len(self.texts)

    def inputs(self) -> list[tuple[str, str]]:
        """Pairs of text and second text, which is empty for single texts."""
        seconds = self.pairs if self.pairs is not None else ("",) * len(self)
        return list(zip(self.texts, seconds, strict=True))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Split:
        """The examples at `indices` (`[any]`), in that order."""
        chosen = np.asarray(indices, np.int64)
        pairs = None if self.pairs is None else _taken(self.pairs, chosen)
        return Split(_taken(self.texts, chosen), pairs, _taken(self.targets, chosen))

    def first(self, count: int) -> Split:
        """The first `count` examples."""
        return self.take(np.arange(min(count, len(self))))

    def between(self, first: int, end: int) -> Split:
        """Examples from `first` up to, not with, `end`."""
        pairs = None if self.pairs is None else self.pairs[first:end]
        return Split(self.texts[first:end], pairs, self.targets[first:end])

    def digest(self, with_targets: bool) -> str:
        """SHA-256 over texts, and targets where those are texts to be tokenised too."""
        digest = hashlib.sha256()
        written = self.targets if with_targets else ()
        for column in (self.texts, self.pairs or (), written):
            for text in column:
                digest.update(str(text).encode("utf-8", "surrogatepass") + b"\0")
            digest.update(b"\1")
        return digest.hexdigest()

    def sample(self, count: int | None, seed: int) -> Split:
        """A fixed random subset of at most `count` examples, in their order."""
        if count is None or count >= len(self):
            return self
        chosen = np.random.default_rng(seed).permutation(len(self))[:count]
        return self.take(np.sort(chosen))

    def shuffled(self, seed: int) -> Split:
        """The same examples in a fixed random order, so that the first n are a fair subset."""
        return self.take(np.random.default_rng(seed).permutation(len(self)))


def _taken(values: Any, chosen: NDArray[np.int64]) -> Any:
    if isinstance(values, np.ndarray):
        return values[chosen]
    if hasattr(values, "take"):
        return values.take(chosen)
    return tuple(values[i] for i in chosen.tolist())
