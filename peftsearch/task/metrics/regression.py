"""Scores of predicted numbers. References and predictions are float64 (n,).

A prediction that is no finite number makes the score nan.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from peftsearch.task.metrics.base import Metric
from peftsearch.task.metrics.per_example import mean_of, predictions_of
from peftsearch.task.metrics.resampling import bootstrap_error, mean_error

__all__ = ["ROWS", "mse", "mse_error", "pearson", "pearson_error", "spearman", "spearman_error"]

Values = NDArray[np.float64]

CONSTANT = 1e-13
"""Numbers whose spread is below this share of their mean are equal but for rounding (scipy's
limit in pearsonr)."""


def pearson(references: Values, predictions: Values) -> float:
    """Pearson's correlation, −1 to 1; 0 where references or predictions are constant.

    >>> round(pearson(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])), 4)
    0.982
    """
    if not _usable(references, predictions):
        return math.nan
    one, other = _standardised(references), _standardised(predictions)
    return 0.0 if one is None or other is None else float(np.clip(one @ other, -1.0, 1.0))


def pearson_error(references: Values, predictions: Values) -> float:
    if not _usable(references, predictions):
        return math.nan
    return bootstrap_error(len(references), lambda at: pearson(references[at], predictions[at]))


def spearman(references: Values, predictions: Values) -> float:
    """Pearson's correlation of the ranks, −1 to 1, equal numbers sharing their mean rank.

    >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])), 4)
    1.0
    """
    if not _usable(references, predictions):
        return math.nan
    from scipy.stats import rankdata

    return pearson(rankdata(references), rankdata(predictions))


def spearman_error(references: Values, predictions: Values) -> float:
    if not _usable(references, predictions):
        return math.nan
    return bootstrap_error(len(references), lambda at: spearman(references[at], predictions[at]))


def mse(references: Values, predictions: Values) -> float:
    """Mean squared error, in the square of the targets' unit; less is better.

    >>> mse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    2.0
    """
    if not _usable(references, predictions):
        return math.nan
    return float(_squares(references, predictions).mean())


def mse_error(references: Values, predictions: Values) -> float:
    if not _usable(references, predictions):
        return math.nan
    return mean_error(_squares(references, predictions))


def _usable(references: Values, predictions: Values) -> bool:
    return len(references) > 0 and all(
        bool(np.isfinite(values).all()) for values in (references, predictions)
    )


def _squares(references: Values, predictions: Values) -> Values:
    with np.errstate(over="ignore"):
        return (references - predictions) ** 2


def _standardised(values: Values) -> Values | None:
    """The values minus their mean, scaled to length 1, `[n]`; None where they are constant."""
    centred = values - values.mean()
    # Divided by the largest first: the squares of very large or small numbers are inf or 0.
    largest = np.abs(centred).max()
    if largest <= CONSTANT * abs(values.mean()):
        return None
    scaled = centred / largest
    return np.asarray(scaled / np.linalg.norm(scaled), np.float64)


ROWS = (
    Metric(
        "pearson",
        "values",
        pearson,
        pearson_error,
        title="Pearson correlation",
        per_example=predictions_of(pearson),
    ),
    Metric(
        "spearman",
        "values",
        spearman,
        spearman_error,
        title="Spearman rank correlation",
        per_example=predictions_of(spearman),
    ),
    Metric(
        "mse",
        "values",
        mse,
        mse_error,
        title="mean squared error",
        per_example=mean_of(_squares),
        maximise=False,
        best=0.0,
        constant=lambda references: float(np.var(references)) if len(references) else math.nan,
    ),
)
