"""Scores of predicted labels. References and predictions are label indices, int64 (n,).

Errors of F1 and MCC are bootstrapped over counts of labels, which is all that they depend on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftsearch.task.metrics.base import Metric
from peftsearch.task.metrics.per_example import PerExample, mean_of, predictions_of
from peftsearch.task.metrics.resampling import bootstrap_error, mean_error

__all__ = [
    "POSITIVE",
    "ROWS",
    "accuracy",
    "accuracy_error",
    "f1",
    "f1_error",
    "f1_of",
    "macro_f1",
    "macro_f1_error",
    "matthews",
    "matthews_error",
    "most_frequent",
]

Labels = NDArray[np.int64]

POSITIVE = 1
"""Index of the label whose F1 is that of a task of two labels, unless another is named."""


def accuracy(references: Labels, predictions: Labels) -> float:
    """Share of predictions equal to the reference, 0 to 1.

    >>> accuracy(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
    0.75
    """
    return float(_right(references, predictions).mean()) if len(references) else math.nan


def accuracy_error(references: Labels, predictions: Labels) -> float:
    return mean_error(_right(references, predictions).astype(np.float64))


def macro_f1(references: Labels, predictions: Labels) -> float:
    """Mean F1 of the labels that occur in references or predictions, 0 to 1.

    >>> round(macro_f1(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])), 4)
    0.7333
    """
    return _f1_of(references, predictions, "macro")


def macro_f1_error(references: Labels, predictions: Labels) -> float:
    return _counts_error(references, predictions, _macro_f1_of)


def f1(references: Labels, predictions: Labels, positive: int = POSITIVE) -> float:
    """F1 of one label, `positive`, against all others, 0 to 1; 0 where it occurs nowhere.

    >>> round(f1(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])), 4)
    0.6667
    """
    return _f1_of(references == positive, predictions == positive, "binary")


def f1_error(references: Labels, predictions: Labels, positive: int = POSITIVE) -> float:
    one, other = ((found == positive).astype(np.int64) for found in (references, predictions))
    return _counts_error(one, other, lambda counts: float(counts.f1()[1]), labels=2)


def matthews(references: Labels, predictions: Labels) -> float:
    """Matthews' correlation coefficient, of any number of labels (Gorodkin 2004), −1 to 1; 0 where
    all references or all predictions are one label.

    >>> round(matthews(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])), 4)
    0.5774
    """
    if len(references) == 0:
        return math.nan
    if len(np.unique(references)) == 1 or len(np.unique(predictions)) == 1:
        return 0.0
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(references, predictions))


def matthews_error(references: Labels, predictions: Labels) -> float:
    return _counts_error(references, predictions, _matthews_of)


def most_frequent(references: Labels) -> Labels:
    """Predictions (n,) of the constant predictor: the most frequent label, the least of equals.

    >>> most_frequent(np.array([2, 0, 2])).tolist()
    [2, 2, 2]
    """
    values, counts = np.unique(references, return_counts=True)
    return np.full_like(references, values[counts.argmax()])


def _right(references: Labels, predictions: Labels) -> NDArray[np.bool_]:
    return np.asarray(references == predictions)


def _f1_of_one(positive: int) -> PerExample:
    """Whether each example's label is `positive`, and whether it was predicted."""
    return predictions_of(
        partial(_f1_of, average="binary"), lambda labels: np.asarray(labels == positive)
    )


def _f1_of(
    references: Labels | NDArray[np.bool_], predictions: Labels | NDArray[np.bool_], average: str
) -> float:
    if len(references) == 0:
        return math.nan
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average=average, zero_division=0))


@dataclass(frozen=True)
class _Counts:
    """Counts per label (c,): correctly predicted, predicted, and in the references."""

    right: Labels
    predicted: Labels
    true: Labels

    @classmethod
    def of(cls, references: Labels, predictions: Labels, labels: int) -> _Counts:
        right = references[references == predictions]
        three = (np.bincount(found, minlength=labels) for found in (right, predictions, references))
        return cls(*three)

    def f1(self) -> NDArray[np.float64]:
        """F1 of every label (c,); 0 of one that occurs nowhere."""
        either = np.maximum(self.predicted + self.true, 1)
        return np.asarray(2 * self.right / either, np.float64)


def _macro_f1_of(counts: _Counts) -> float:
    return float(counts.f1()[counts.predicted + counts.true > 0].mean())


def _matthews_of(counts: _Counts) -> float:
    """Covariance of references and predictions over the root of their variances."""
    right, predicted, true = (
        found.astype(np.float64) for found in (counts.right, counts.predicted, counts.true)
    )
    n = true.sum()
    spread = (n**2 - (predicted**2).sum()) * (n**2 - (true**2).sum())
    return float((right.sum() * n - predicted @ true) / math.sqrt(spread)) if spread > 0 else 0.0


def _counts_error(
    references: Labels,
    predictions: Labels,
    score: Callable[[_Counts], float],
    labels: int | None = None,
) -> float:
    if len(references) == 0:
        return math.nan
    width = int(max(references.max(), predictions.max())) + 1 if labels is None else labels
    return bootstrap_error(
        len(references), lambda at: score(_Counts.of(references[at], predictions[at], width))
    )


def _of_most_frequent(score: Callable[[Any, Any], float]) -> Callable[[Any], float]:
    """The score of always predicting the most frequent label of the references."""
    return lambda references: (
        score(references, most_frequent(references)) if len(references) else math.nan
    )


F1 = Metric(
    "f1",
    "labels",
    f1,
    f1_error,
    title="F1 of the second label",
    per_example=_f1_of_one(POSITIVE),
    constant=_of_most_frequent(f1),
)

ROWS = (
    Metric(
        "accuracy",
        "labels",
        accuracy,
        accuracy_error,
        title="accuracy",
        per_example=mean_of(_right),
        constant=_of_most_frequent(accuracy),
    ),
    Metric(
        "macro_f1",
        "labels",
        macro_f1,
        macro_f1_error,
        title="F1, mean over labels",
        per_example=predictions_of(macro_f1),
        constant=_of_most_frequent(macro_f1),
    ),
    F1,
    Metric(
        "matthews",
        "labels",
        matthews,
        matthews_error,
        title="Matthews correlation",
        per_example=predictions_of(matthews),
    ),
)


def f1_of(label: str, index: int) -> Metric:
    """The metric `f1` of the label with that index, against all others.

    >>> f1_of("spam", 1).title
    "F1 of 'spam'"
    """
    score = partial(f1, positive=index)
    return replace(
        F1,
        score=score,
        error=partial(f1_error, positive=index),
        title=f"F1 of '{label}'",
        per_example=_f1_of_one(index),
        constant=_of_most_frequent(score),
    )
