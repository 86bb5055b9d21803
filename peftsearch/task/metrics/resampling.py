"""Standard errors from a sample of examples: of a mean, of a ratio of sums, and by bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["RESAMPLES", "SEED", "bootstrap_error", "mean_error", "ratio_error", "resamples"]

RESAMPLES = 200
"""Enough for a standard error; percentiles would need more (Efron & Tibshirani 1993, ch. 6.4)."""
SEED = 0
"""One seed for all, so that the errors of two trials differ by their predictions alone."""


def mean_error(each: NDArray[np.floating]) -> float:
    """Standard error sd/√n of the mean of n scores (n,); of zeros and ones √(p(1 − p)/n). The
    plug-in estimate, which divides the variance by n (Efron & Tibshirani 1993, eq. 5.12). nan of no
    scores.

    >>> mean_error(np.array([0.0, 1.0, 0.0, 1.0]))
    0.25
    """
    return float(each.std() / math.sqrt(len(each))) if len(each) else math.nan


def ratio_error(above: NDArray[np.floating], below: NDArray[np.int64]) -> float:
    """Standard error of Σ above / Σ below over n examples (n,), drawn as pairs; delta method:
    √Σ(aᵢ − R bᵢ)² / Σ bᵢ with R the ratio (Cochran 1977, eq. 2.46). nan where Σ below is 0.

    >>> ratio_error(np.array([1.0, 2.0]), np.array([1, 2]))
    0.0
    """
    total = float(below.sum())
    if total == 0:
        return math.nan
    residuals = above - above.sum() / total * below
    return float(np.sqrt((residuals**2).sum()) / total)


def resamples(n: int) -> Iterator[NDArray[np.int64]]:
    """Indices (n,) of RESAMPLES samples of n examples, drawn with replacement from SEED."""
    draws = np.random.default_rng(SEED)
    for _ in range(RESAMPLES):
        yield draws.integers(0, n, size=n)


def bootstrap_error(n: int, score: Callable[[NDArray[np.int64]], float]) -> float:
    """Standard deviation over resamples of the score of the examples at some indices (Efron &
    Tibshirani 1993, alg. 6.1). nan of no examples.
    """
    if n == 0:
        return math.nan
    return float(np.std([score(indices) for indices in resamples(n)], ddof=1))
