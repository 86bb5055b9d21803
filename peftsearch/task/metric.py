"""Metrics of every kind of task, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["METRICS", "Metric"]


@dataclass(frozen=True)
class Metric:
    """How predictions are scored."""

    name: str
    of: Literal["labels", "values", "texts", "loss"]
    score: Callable[[Any, Any], float]
    maximise: bool = True
    best: float = 1.0
    decimals: int = 4
    title: str = ""

    def value(self, references: Any, predictions: Any) -> float:
        return float(self.score(references, predictions))

    def standard_error(self, references: Any, predictions: Any) -> float:
        value, n = self.value(references, predictions), len(references)
        return math.sqrt(max(value * (1 - value), 0.0) / max(n, 1)) if self.best == 1 else 0.0

    def constant_value(self, references: Any) -> float | None:
        if self.of == "labels":
            values, counts = np.unique(references, return_counts=True)
            return self.value(references, np.full_like(references, values[counts.argmax()]))
        return None if self.of == "loss" else 0.0

    def refuse_if_missing(self) -> None:
        return

    def written(self, value: float, error: float | None = None) -> str:
        shown = f"{value:.{self.decimals}f}"
        return shown if error is None else f"{shown} ± {error:.{self.decimals}f}"


def _accuracy(labels: Any, predicted: Any) -> float:
    return float((labels == predicted).mean())


def _macro_f1(labels: Any, predicted: Any) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average="macro", zero_division=0))


def _exact(a: Any, b: Any) -> float:
    return float(np.mean([x.strip() == y.strip() for x, y in zip(a, b, strict=True)]))


def _rouge(name: str) -> Callable[[Any, Any], float]:
    def score(a: Any, b: Any) -> float:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([name], use_stemmer=True)
        return 100 * float(np.mean([scorer.score(x, y)[name].fmeasure for x, y in zip(a, b)]))

    return score


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("accuracy", "labels", _accuracy),
        Metric("macro_f1", "labels", _macro_f1),
        Metric("exact_match", "texts", _exact),
        Metric("rouge2", "texts", _rouge("rouge2"), best=100.0, decimals=2),
        Metric("pearson", "values", lambda a, b: float(np.corrcoef(a, b)[0, 1])),
        Metric("loss", "loss", lambda w, n: float(n.sum() / w.sum()), maximise=False, best=0.0),
        Metric(
            "perplexity",
            "loss",
            lambda w, n: float(np.exp(n.sum() / w.sum())),
            maximise=False,
            best=1.0,
            decimals=2,
        ),
    )
}
