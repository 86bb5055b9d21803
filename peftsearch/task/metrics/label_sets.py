"""Scores of predicted sets of labels. References are 0 and 1, int8 (n, labels), predictions the
logits of the labels, float64 (n, labels): a label is predicted where its logit is above 0, its
probability above a half.

A prediction that is no finite number makes the score nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftsearch.task.metrics.base import Metric
from peftsearch.task.metrics.per_example import PerExample, mean_of, predictions_of
from peftsearch.task.metrics.resampling import bootstrap_error, mean_error

__all__ = [
    "ROWS",
    "bce",
    "bce_error",
    "entropy",
    "f1_macro",
    "f1_macro_error",
    "f1_micro",
    "f1_micro_error",
    "majority",
    "subset_accuracy",
    "subset_accuracy_error",
]

Sets = NDArray[np.int8]
Logits = NDArray[np.float64]
Counts = NDArray[np.int64]


def f1_micro(references: Sets, predictions: Logits) -> float:
    """F1 over all pairs of an example and a label, 0 to 1; 0 where none is a reference or
    predicted.

    >>> f1_micro(np.array([[1, 0], [1, 1]]), np.array([[2.0, -1.0], [3.0, -1.0]]))
    0.8
    """
    return _scored(_micro, references, predictions)


def f1_micro_error(references: Sets, predictions: Logits) -> float:
    return _error(_micro, references, predictions)


def f1_macro(references: Sets, predictions: Logits) -> float:
    """Mean F1 of all labels, 0 to 1; 0 for one that occurs neither in references nor in
    predictions, as in scikit-learn.

    >>> f1_macro(np.array([[1, 0], [1, 1]]), np.array([[2.0, -1.0], [3.0, -1.0]]))
    0.5
    """
    return _scored(_macro, references, predictions)


def f1_macro_error(references: Sets, predictions: Logits) -> float:
    return _error(_macro, references, predictions)


def subset_accuracy(references: Sets, predictions: Logits) -> float:
    """Share of examples of which every label is right, 0 to 1.

    >>> subset_accuracy(np.array([[1, 0], [1, 1]]), np.array([[2.0, -1.0], [3.0, -1.0]]))
    0.5
    """
    if not _usable(predictions):
        return math.nan
    return float(_right_sets(references, predictions).mean())


def subset_accuracy_error(references: Sets, predictions: Logits) -> float:
    if not _usable(predictions):
        return math.nan
    return mean_error(_right_sets(references, predictions).astype(np.float64))


def bce(references: Sets, predictions: Logits) -> float:
    """Binary cross-entropy, mean over labels and examples, in nats; less is better.

    >>> round(bce(np.array([[1, 0], [1, 1]]), np.array([[2.0, -1.0], [3.0, -1.0]])), 4)
    0.4505
    """
    return float(_entropies(references, predictions).mean()) if _usable(predictions) else math.nan


def bce_error(references: Sets, predictions: Logits) -> float:
    return mean_error(_entropies(references, predictions)) if _usable(predictions) else math.nan


def entropy(references: Sets) -> float:
    """`bce` of the constant predictor that knows how frequent each label is."""
    if not len(references):
        return math.nan
    shares = references.mean(0, dtype=np.float64)
    both = np.stack([shares, 1 - shares])
    return float(-(both * np.log(np.where(both > 0, both, 1))).sum(0).mean())


def majority(references: Sets) -> Logits:
    """Logits of the constant predictor: above 0 for labels of more than half of the references."""
    shares = references.mean(0, dtype=np.float64) if len(references) else 0.0
    return np.broadcast_to(shares - 0.5, references.shape).astype(np.float64)


@dataclass(frozen=True)
class _Counts:
    """Counts per label (labels,): correctly predicted, predicted, and in the references."""

    right: Counts
    predicted: Counts
    true: Counts


def _micro(counts: _Counts) -> float:
    either = int(counts.predicted.sum() + counts.true.sum())
    return 2 * int(counts.right.sum()) / either if either else 0.0


def _macro(counts: _Counts) -> float:
    either = np.maximum(counts.predicted + counts.true, 1)
    return float((2 * counts.right / either).mean())


def _usable(predictions: Logits) -> bool:
    return len(predictions) > 0 and bool(np.isfinite(predictions).all())


def _scored(score: Callable[[_Counts], float], references: Sets, predictions: Logits) -> float:
    if not _usable(predictions):
        return math.nan
    predicted, true = predictions > 0, references > 0
    three = (found.sum(0, np.int64) for found in (predicted & true, predicted, true))
    return score(_Counts(*three))


def _error(score: Callable[[_Counts], float], references: Sets, predictions: Logits) -> float:
    """Bootstrap error over examples."""
    if not _usable(predictions):
        return math.nan
    from scipy.sparse import csr_array

    predicted, true = predictions > 0, references > 0
    n = len(references)
    # Sparse: an example has few of many labels, and RESAMPLES products of whole tables are slow.
    three: list[Any] = [
        csr_array(found.T.astype(np.int64)) for found in (predicted & true, predicted, true)
    ]

    def of(at: NDArray[np.int64]) -> float:
        times = np.bincount(at, minlength=n)
        return score(_Counts(*(found @ times for found in three)))

    return bootstrap_error(n, of)


def _counts_of_each(references: Sets, predictions: Logits) -> dict[str, Counts]:
    """Labels of each example (n,): correctly predicted, predicted, and in its reference."""
    predicted, true = predictions > 0, references > 0
    three = (found.sum(1, np.int64) for found in (predicted & true, predicted, true))
    return dict(zip(("right", "predicted", "true"), three, strict=True))


def _right_sets(references: Sets, predictions: Logits) -> NDArray[np.bool_]:
    return np.asarray(((references > 0) == (predictions > 0)).all(1))


def _entropies(references: Sets, predictions: Logits) -> NDArray[np.float64]:
    """Cross-entropy of each example (n,), computed without overflow of exp."""
    return np.asarray((np.logaddexp(0, predictions) - references * predictions).mean(1))


def _of_majority(
    score: Callable[[Any, Any], float], needs_labels: bool = False
) -> Callable[[Any], float]:
    """The score of always predicting the labels of more than half of the references; nan where
    `needs_labels` and no reference has a label: no score but 0 is possible.
    """

    def constant(references: Any) -> float:
        if needs_labels and not references.any():
            return math.nan
        return score(references, majority(references))

    return constant


ROWS = (
    Metric(
        "f1_micro",
        "label sets",
        f1_micro,
        f1_micro_error,
        title="F1 over all labels of all texts",
        per_example=PerExample(
            _counts_of_each,
            lambda arrays: _micro(_Counts(**arrays)),
        ),
        constant=_of_majority(f1_micro, needs_labels=True),
    ),
    Metric(
        "f1_macro",
        "label sets",
        f1_macro,
        f1_macro_error,
        title="F1, mean over labels",
        per_example=predictions_of(f1_macro, lambda sets: np.asarray(sets > 0)),
        constant=_of_majority(f1_macro, needs_labels=True),
    ),
    Metric(
        "subset_accuracy",
        "label sets",
        subset_accuracy,
        subset_accuracy_error,
        title="texts with every label right",
        per_example=mean_of(_right_sets),
        constant=_of_majority(subset_accuracy),
    ),
    Metric(
        "bce",
        "label sets",
        bce,
        bce_error,
        title="binary cross-entropy, mean over labels",
        per_example=mean_of(_entropies),
        maximise=False,
        best=0.0,
        constant=entropy,
    ),
)
