"""Metrics by name; each is defined beside its score, in the module of its kind."""

from __future__ import annotations

from peftsearch.task.metrics import classification, label_sets, losses, regression, texts
from peftsearch.task.metrics.base import Metric

__all__ = ["METRICS", "metrics_for"]

METRICS: dict[str, Metric] = {
    metric.name: metric
    for module in (classification, label_sets, regression, texts, losses)
    for metric in module.ROWS
}


def metrics_for(output: str) -> tuple[str, ...]:
    """Names of the metrics for a model's output ("labels", "label sets", "values" or "texts");
    texts also have losses.

    >>> metrics_for("values")
    ('pearson', 'spearman', 'mse')
    """
    fitting = {"texts": {"texts", "loss"}}.get(output, {output})
    return tuple(name for name, metric in METRICS.items() if metric.of in fitting)
