"""Statistics of single examples, from which a metric is computed for any sample of them.

They are what a trial keeps of its predictions (`examples.npz`): enough for paired comparisons and
bootstraps of two trials' metrics, and far less than the predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCORE", "Arrays", "PerExample", "mean_of", "predictions_of"]

Arrays = Mapping[str, NDArray[Any]]
"""Name → array; row i of each belongs to example i. Truth values, whole numbers from 0, or float64;
(n,) or (n, columns).
"""

SCORE = "score"
"""Name of each example's own score (n,), of a metric that is the mean of them."""


@dataclass(frozen=True)
class PerExample:
    """A metric's statistics as computed from predictions, and the metric from statistics.

    >>> counted = mean_of(lambda references, predictions: references == predictions)
    >>> arrays = counted.of(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
    >>> arrays["score"].tolist(), counted.value(arrays)
    ([True, True, False, True], 0.75)
    """

    of: Callable[[Any, Any], dict[str, NDArray[Any]]]
    """The statistics of n references and predictions."""
    value: Callable[[Arrays], float]
    """The metric of the examples whose statistics these are."""


def mean_of(each: Callable[[Any, Any], NDArray[Any]]) -> PerExample:
    """For a metric that is a mean: `each` gives every example's own score (n,)."""
    return PerExample(
        lambda references, predictions: {SCORE: each(references, predictions)},
        lambda arrays: float(arrays[SCORE].mean()),
    )


def predictions_of(
    score: Callable[[Any, Any], float],
    read: Callable[[Any], NDArray[Any]] = lambda found: np.asarray(found),
) -> PerExample:
    """For any metric of labels or numbers: references and predictions themselves, each as `read`
    makes of it what `score` takes.
    """
    return PerExample(
        lambda references, predictions: {
            "reference": read(references),
            "predicted": read(predictions),
        },
        lambda arrays: score(arrays["reference"], arrays["predicted"]),
    )
