"""Losses of texts as metrics. In place of references and predictions there are, for each of n
examples, the number of tokens of its target, int64 (n,), and its loss in nats, float64 (n,).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftsearch.task.metrics.base import Metric
from peftsearch.task.metrics.per_example import Arrays, PerExample
from peftsearch.task.metrics.resampling import ratio_error

__all__ = ["ROWS", "loss", "loss_error", "perplexity", "perplexity_error"]

Tokens = NDArray[np.int64]
Nats = NDArray[np.float64]


def loss(tokens: Tokens, nats: Nats) -> float:
    """Mean loss of a token in nats; nan without tokens.

    >>> loss(np.array([2, 3]), np.array([1.0, 2.0]))
    0.6
    """
    total = int(tokens.sum())
    return float(nats.sum()) / total if total else math.nan


def loss_error(tokens: Tokens, nats: Nats) -> float:
    """Standard error of `loss`; examples, not tokens, are taken to be independent."""
    if not np.isfinite(nats).all():
        return math.nan
    return ratio_error(nats, tokens)


def perplexity(tokens: Tokens, nats: Nats) -> float:
    """exp(loss), at least 1; inf where that is beyond a float.

    >>> round(perplexity(np.array([2, 3]), np.array([1.0, 2.0])), 4)
    1.8221
    """
    try:
        return math.exp(loss(tokens, nats))
    except OverflowError:
        return math.inf


def perplexity_error(tokens: Tokens, nats: Nats) -> float:
    """Standard error of `perplexity` by the delta method: the loss's error times the slope of exp,
    which is the perplexity.
    """
    return perplexity(tokens, nats) * loss_error(tokens, nats)


def _of(tokens: Tokens, nats: Nats) -> dict[str, NDArray[Any]]:
    return {"tokens": tokens, "nats": nats}


def _loss_of(arrays: Arrays) -> float:
    return loss(arrays["tokens"], arrays["nats"])


def _perplexity_of(arrays: Arrays) -> float:
    return perplexity(arrays["tokens"], arrays["nats"])


ROWS = (
    Metric(
        "loss",
        "loss",
        loss,
        loss_error,
        title="loss, nats a token",
        per_example=PerExample(_of, _loss_of),
        maximise=False,
        best=0.0,
        constant=lambda references: None,
    ),
    Metric(
        "perplexity",
        "loss",
        perplexity,
        perplexity_error,
        title="perplexity of a token",
        per_example=PerExample(_of, _perplexity_of),
        maximise=False,
        best=1.0,
        decimals=2,
        constant=lambda references: None,
    ),
)
