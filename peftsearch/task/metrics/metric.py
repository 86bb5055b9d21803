"""Metrics of every kind of task, by name, with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from peftsearch.task.metrics import classification, label_sets, losses, regression, texts
from peftsearch.wording import measured

__all__ = ["METRICS", "Metric", "f1_of", "metrics_for"]


@dataclass(frozen=True)
class Metric:
    """A metric: its score and standard error. References and predictions depend on `of`:

    - "labels": label indices, int64 (n,);
    - "label sets": 0 and 1, int8 (n, labels), and logits, float64 (n, labels), which are above 0
      where a label is predicted;
    - "values": numbers, float64 (n,);
    - "texts": sequences of n texts;
    - "loss": tokens of each example's target, int64 (n,), and nats lost on it, float64 (n,).

    Scores and errors of no examples, or of predictions that are no numbers, are nan.
    """

    name: str
    of: Literal["labels", "label sets", "values", "texts", "loss"]
    score: Callable[[Any, Any], float]
    error: Callable[[Any, Any], float]
    title: str
    """Title for people: `ROUGE-2 F1 × 100`."""
    maximise: bool = True
    best: float = 1.0
    """The best possible value: the greatest, or the least where less is better."""
    decimals: int = 4
    """Decimals of a printed value."""
    constant: Callable[[Any], float | None] = lambda references: 0.0
    """The score of a constant predictor, given the references."""
    needs: str | None = None
    """The module that computes it and may be missing."""

    def value(self, references: Any, predictions: Any) -> float:
        """The score of predictions, in their order."""
        self._check(references, predictions)
        return self.score(references, predictions)

    def standard_error(self, references: Any, predictions: Any) -> float:
        """Standard error of `value` over samples of examples; deterministic."""
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
            texts.library(self.needs)

    def written(self, value: float, error: float | None = None) -> str:
        """`0.7530 ± 0.0136`, `21.90`, or a dash for nan."""
        return measured(value, error, self.decimals)

    def _check(self, references: Any, predictions: Any) -> None:
        if len(references) != len(predictions):
            raise ValueError(
                f"{self.name}: {len(references)} references and {len(predictions)} predictions"
            )


def metrics_for(output: str) -> tuple[str, ...]:
    """Names of the metrics for a model's output ("labels", "label sets", "values" or "texts");
    texts also have losses.
    """
    fitting = {"texts": {"texts", "loss"}}.get(output, {output})
    return tuple(name for name, metric in METRICS.items() if metric.of in fitting)


def _of_most_frequent(score: Callable[[Any, Any], float]) -> Callable[[Any], float]:
    """The score of always predicting the most frequent label of the references."""
    return lambda references: (
        score(references, classification.most_frequent(references)) if len(references) else math.nan
    )


def _of_majority(
    score: Callable[[Any, Any], float], needs_labels: bool = False
) -> Callable[[Any], float]:
    """The score of always predicting the labels of more than half of the references; nan where
    `needs_labels` and no reference has a label: no score but 0 is possible.
    """

    def constant(references: Any) -> float:
        if needs_labels and not references.any():
            return math.nan
        return score(references, label_sets.majority(references))

    return constant


ROUGE = "rouge_score.rouge_scorer"
SACREBLEU = "sacrebleu"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy",
            "labels",
            classification.accuracy,
            classification.accuracy_error,
            title="accuracy",
            constant=_of_most_frequent(classification.accuracy),
        ),
        Metric(
            "macro_f1",
            "labels",
            classification.macro_f1,
            classification.macro_f1_error,
            title="F1, mean over labels",
            constant=_of_most_frequent(classification.macro_f1),
        ),
        Metric(
            "f1",
            "labels",
            classification.f1,
            classification.f1_error,
            title="F1 of the second label",
            constant=_of_most_frequent(classification.f1),
        ),
        Metric(
            "matthews",
            "labels",
            classification.matthews,
            classification.matthews_error,
            title="Matthews correlation",
        ),
        Metric(
            "f1_micro",
            "label sets",
            label_sets.f1_micro,
            label_sets.f1_micro_error,
            title="F1 over all labels of all texts",
            constant=_of_majority(label_sets.f1_micro, needs_labels=True),
        ),
        Metric(
            "f1_macro",
            "label sets",
            label_sets.f1_macro,
            label_sets.f1_macro_error,
            title="F1, mean over labels",
            constant=_of_majority(label_sets.f1_macro, needs_labels=True),
        ),
        Metric(
            "subset_accuracy",
            "label sets",
            label_sets.subset_accuracy,
            label_sets.subset_accuracy_error,
            title="texts with every label right",
            constant=_of_majority(label_sets.subset_accuracy),
        ),
        Metric(
            "bce",
            "label sets",
            label_sets.bce,
            label_sets.bce_error,
            title="binary cross-entropy, mean over labels",
            maximise=False,
            best=0.0,
            constant=label_sets.entropy,
        ),
        Metric(
            "pearson",
            "values",
            regression.pearson,
            regression.pearson_error,
            title="Pearson correlation",
        ),
        Metric(
            "spearman",
            "values",
            regression.spearman,
            regression.spearman_error,
            title="Spearman rank correlation",
        ),
        Metric(
            "mse",
            "values",
            regression.mse,
            regression.mse_error,
            title="mean squared error",
            maximise=False,
            best=0.0,
            constant=lambda references: float(np.var(references)) if len(references) else math.nan,
        ),
        Metric(
            "rouge2",
            "texts",
            texts.rouge2,
            texts.rouge2_error,
            title="ROUGE-2 F1 × 100",
            best=100.0,
            decimals=2,
            needs=ROUGE,
        ),
        Metric(
            "rouge1",
            "texts",
            texts.rouge1,
            texts.rouge1_error,
            title="ROUGE-1 F1 × 100",
            best=100.0,
            decimals=2,
            needs=ROUGE,
        ),
        Metric(
            "rougeL",
            "texts",
            texts.rouge_l,
            texts.rouge_l_error,
            title="ROUGE-L F1 × 100",
            best=100.0,
            decimals=2,
            needs=ROUGE,
        ),
        Metric(
            "bleu",
            "texts",
            texts.bleu,
            texts.bleu_error,
            title="BLEU",
            best=100.0,
            decimals=2,
            needs=SACREBLEU,
        ),
        Metric(
            "chrf",
            "texts",
            texts.chrf,
            texts.chrf_error,
            title="chrF2",
            best=100.0,
            decimals=2,
            needs=SACREBLEU,
        ),
        Metric(
            "exact_match",
            "texts",
            texts.exact_match,
            texts.exact_match_error,
            title="exact match",
        ),
        Metric(
            "loss",
            "loss",
            losses.loss,
            losses.loss_error,
            title="loss, nats a token",
            maximise=False,
            best=0.0,
            constant=lambda references: None,
        ),
        Metric(
            "perplexity",
            "loss",
            losses.perplexity,
            losses.perplexity_error,
            title="perplexity of a token",
            maximise=False,
            best=1.0,
            decimals=2,
            constant=lambda references: None,
        ),
    )
}


def f1_of(label: str, index: int) -> Metric:
    """The metric `f1` of the label with that index, against all others."""
    score = partial(classification.f1, positive=index)
    return replace(
        METRICS["f1"],
        score=score,
        error=partial(classification.f1_error, positive=index),
        title=f"F1 of '{label}'",
        constant=_of_most_frequent(score),
    )
