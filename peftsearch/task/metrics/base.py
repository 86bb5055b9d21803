"""Metric: a score of predictions, its standard error, range and direction."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from peftsearch.errors import MissingError
from peftsearch.task.metrics.per_example import PerExample
from peftsearch.wording import measured

__all__ = ["Metric", "library"]


@dataclass(frozen=True)
class Metric:
    """A metric: its score and standard error, range and direction. References and predictions
    depend on `of`:

    - "labels": label indices, int64 (n,);
    - "label sets": 0 and 1, int8 (n, labels), and logits, float64 (n, labels), which are above 0
      where a label is predicted;
    - "values": numbers, float64 (n,);
    - "texts": sequences of n texts;
    - "loss": tokens of each example's target, int64 (n,), and nats lost on it, float64 (n,).

    Scores and errors of no examples, or of predictions that are no numbers, are nan.

    >>> accuracy = METRICS["accuracy"]
    >>> references, predictions = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    >>> value = accuracy.value(references, predictions)
    >>> accuracy.format(value, accuracy.standard_error(references, predictions))
    '0.7500 ± 0.2165'
    """

    name: str
    of: Literal["labels", "label sets", "values", "texts", "loss"]
    score: Callable[[Any, Any], float]
    error: Callable[[Any, Any], float]
    title: str
    """Display title: `ROUGE-2 F1 × 100`."""
    per_example: PerExample = field(kw_only=True)
    """The statistics of single examples that a trial keeps."""
    maximise: bool = True
    """False where less is better."""
    best: float = 1.0
    """The best possible value: the greatest, or the least where less is better."""
    decimals: int = 4
    """Decimals of a printed value."""
    constant: Callable[[Any], float | None] = lambda references: 0.0
    """The score of a constant predictor, given the references."""
    needs: str | None = None
    """The module that computes it and may be missing."""

    def value(self, references: Any, predictions: Any) -> float:
        """The score of predictions, which are in the order of the references; ValueError if their
        numbers differ.
        """
        self._check(references, predictions)
        return self.score(references, predictions)

    def standard_error(self, references: Any, predictions: Any) -> float:
        """Standard error of `value` over samples of examples, in its unit; deterministic."""
        self._check(references, predictions)
        return self.error(references, predictions)

    def constant_value(self, references: Any) -> float | None:
        """The score of a constant predictor, as a lower bound on useful models. None for losses of
        texts, where the untuned model's takes its place.
        """
        return self.constant(references)

    def refuse_if_missing(self) -> None:
        """MissingError if the library that computes it is not installed."""
        if self.needs is not None:
            library(self.needs)

    def format(self, value: float, error: float | None = None) -> str:
        """`0.7530 ± 0.0136`, `21.90`, or a dash for nan."""
        return measured(value, error, self.decimals)

    def _check(self, references: Any, predictions: Any) -> None:
        if len(references) != len(predictions):
            raise ValueError(
                f"{self.name}: {len(references)} references and {len(predictions)} predictions"
            )


def library(module: str) -> Any:
    """`rouge_score.rouge_scorer` or `sacrebleu`, imported; MissingError if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0].replace("_", "-")
        raise MissingError(
            f"package '{name}', which this metric needs, is not installed: "
            "pip install 'peftsearch[text]'"
        ) from error
