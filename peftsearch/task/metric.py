"""Metrics of classification: a row each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["METRICS", "Metric"]

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Metric:
    """How predictions are scored. `best`: the greatest value there is."""

    name: str
    score: Callable[[Labels, Labels], float]
    maximise: bool = True
    best: float = 1.0

    def value(self, labels: Labels, predicted: Labels) -> float:
        """The score of predictions (n,) against labels (n,)."""
        return float(self.score(labels, predicted))

    def constant_value(self, labels: Labels) -> float:
        """The score of always predicting the most frequent label."""
        values, counts = np.unique(labels, return_counts=True)
        return self.value(labels, np.full_like(labels, values[counts.argmax()]))

    def standard_error(self, value: float, examples: int) -> float:
        """Binomial standard error from the size of the evaluation set (approximate for F1)."""
        return math.sqrt(max(value * (1 - value), 0.0) / max(examples, 1))


def _accuracy(labels: Labels, predicted: Labels) -> float:
    return float((labels == predicted).mean())


def _macro_f1(labels: Labels, predicted: Labels) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average="macro", zero_division=0))


METRICS: dict[str, Metric] = {
    m.name: m for m in (Metric("accuracy", _accuracy), Metric("macro_f1", _macro_f1))
}
