"""References and predictions of every kind of metric, with ties, misses and repetitions."""

from __future__ import annotations

from typing import Any

import numpy as np

from peftsearch.task.metrics.base import Metric

__all__ = ["drawn", "sample_of"]

WORDS = "the a cat dog sat ran on under mat tree and then it was very cold . , ! Straße".split()
LABELS = 3


def drawn(metric: Metric, n: int, seed: int = 0) -> tuple[Any, Any]:
    """The arguments of a metric for n examples."""
    draws = np.random.default_rng(seed)
    if metric.of == "labels":
        references = draws.integers(0, LABELS, n)
        return references, np.where(draws.random(n) < 0.6, references, draws.integers(0, LABELS, n))
    if metric.of == "label sets":
        references = (draws.random((n, 5)) < 0.4).astype(np.int8)
        return references, draws.normal(size=(n, 5)) + 2 * references - 1
    if metric.of == "values":
        references = draws.integers(0, 60, n) / 10  # with ties, and not exact in fp32
        return references, references + draws.normal(size=n).round(1)
    if metric.of == "loss":
        tokens = draws.integers(1, 40, n)
        return tokens, tokens * draws.gamma(2.0, size=n)
    written = [_text(draws) for _ in range(n)]
    return [reference for reference, _ in written], [prediction for _, prediction in written]


def _text(draws: np.random.Generator) -> tuple[str, str]:
    words = draws.choice(WORDS, size=draws.integers(1, 30))
    kept = draws.random(len(words)) < draws.choice([0.5, 0.9, 1.0])
    return " ".join(words), " ".join(np.where(kept, words, draws.choice(WORDS, size=len(words))))


def sample_of(values: Any, at: Any) -> Any:
    """Some examples, which may repeat."""
    return values[at] if isinstance(values, np.ndarray) else [values[i] for i in at.tolist()]
