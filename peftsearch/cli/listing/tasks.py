"""`peftsearch ls tasks`: known data sets, kinds of task, metrics."""

from __future__ import annotations

from typing import Any

__all__ = ["kinds", "metrics", "tasks"]

Row = dict[str, Any]

_SOURCES = {
    "--train FILE": "your own csv, tsv, txt, json, jsonl or parquet, optionally compressed",
    "--train A.en,A.ro": "parallel text, a sentence a line",
    "--train FOLDER": "a data set written by save_to_disk",
}


def tasks() -> list[Row]:
    """Tasks known by name, then the ways to give your own data."""
    from peftsearch.task.sources.demo import DEMO_TASKS
    from peftsearch.task.sources.known import KNOWN_DATASETS

    rows = [
        _row(name, demo.kind, "", f"{demo.about} (peftsearch[demo])")
        for name, demo in DEMO_TASKS.items()
    ]
    rows += [
        _row(known.name, known.kind, known.metric or "", "of the Hub") for known in KNOWN_DATASETS
    ]
    rows.append(
        _row("owner/dataset:config", "", "", "any other of the Hub, with --text and --label")
    )
    return rows + [_row(name, "", "", about) for name, about in _SOURCES.items()]


def _row(task: str, kind: str, metric: str, about: str) -> Row:
    return {"task": task, "kind": kind, "metric": metric, "about": about}


def kinds() -> list[Row]:
    """Kinds of task, with the metrics that fit; the first is the default."""
    from peftsearch.task.kinds.table import KINDS

    predicted = {
        "labels": "a label",
        "label sets": "any number of labels",
        "values": "a number",
        "texts": "a text",
    }
    return [
        {
            "kind": kind.name,
            "predicts": predicted[kind.output],
            "metrics": " ".join(kind.metrics),
        }
        for kind in KINDS.values()
    ]


def metrics() -> list[Row]:
    """Metrics, with direction and range."""
    from peftsearch.task.metrics.table import METRICS

    return [
        {
            "metric": metric.name,
            "about": metric.title,
            "of": metric.of,
            "better": "more" if metric.maximise else "less",
            "best": f"{metric.best:g}",
        }
        for metric in METRICS.values()
    ]
