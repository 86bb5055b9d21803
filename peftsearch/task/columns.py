"""Which columns hold the texts and the label, and turning rows into labelled texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from peftsearch.errors import DataError, did_you_mean
from peftsearch.task.rows import Rows
from peftsearch.task.text import Split

__all__ = ["Columns", "find_columns", "find_text", "label_names", "text_column", "to_split"]

_TEXT_NAMES = ("text", "sentence", "content", "tweet", "document", "review", "question")
_PAIR_NAMES = (
    ("sentence1", "sentence2"),
    ("text_a", "text_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)
_LABEL_NAMES = ("label", "labels", "class", "category", "sentiment", "target", "gold", "topic")


@dataclass(frozen=True)
class Columns:
    """One or two text columns and the label's."""

    text: tuple[str, ...]
    label: str
    guessed: bool = False

    def note(self) -> str:
        texts = " and ".join(f"'{name}'" for name in self.text)
        return (
            f"columns guessed: text {texts}, label '{self.label}' (set them with --text, --label)"
        )


def find_columns(rows: Rows, text: Sequence[str], label: str | None) -> Columns:
    """The named columns, or a guess from their names; DataError if neither is possible."""
    names = [str(name) for name in rows.table.columns]
    texts = find_text(rows, text)
    if label and label not in names:
        raise DataError(f"{rows.name}: no column '{label}'{did_you_mean(label, names)}")
    found = label or next((n for n in _LABEL_NAMES if n in names), None)
    if found is None:
        listed = ", ".join(names)
        raise DataError(f"{rows.name}: name the label column (--label); columns are: {listed}")
    if found in texts or len(set(texts)) < len(texts):
        raise DataError(f"{rows.name}: column '{found}' cannot be used twice")
    return Columns(texts, found, guessed=not text or not label)


def find_text(rows: Rows, text: Sequence[str]) -> tuple[str, ...]:
    """The named text columns (one or two), or a guess from the columns' names."""
    names = [str(name) for name in rows.table.columns]
    for name in text:
        if name not in names:
            raise DataError(f"{rows.name}: no column '{name}'{did_you_mean(name, names)}")
    if len(text) > 2:
        raise DataError(f"{len(text)} text columns were given; one or two can be used")
    texts = tuple(text) or _guess_text(names)
    if not texts:
        listed = ", ".join(names)
        raise DataError(f"{rows.name}: name the text column (--text); columns are: {listed}")
    return texts


def _guess_text(names: Sequence[str]) -> tuple[str, ...]:
    for pair in _PAIR_NAMES:
        if set(pair) <= set(names):
            return pair
    return next(((name,) for name in _TEXT_NAMES if name in names), ())


def label_names(rows: Rows, column: str) -> tuple[str, ...]:
    """Label names in a stable order: numbers by value, others by name. At least two."""
    present = {_label(value) for value in rows.table[column]} - {""}
    if len(present) < 2:
        only = f"only '{next(iter(present))}'" if present else "none"
        raise DataError(f"{rows.name}: column '{column}' holds {only}; two labels are needed")
    if len(present) > 1000:
        raise DataError(
            f"{rows.name}: column '{column}' holds {len(present):,} different labels: is it text?"
        )
    return tuple(sorted(present, key=_label_order))


def _label_order(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def to_split(rows: Rows, columns: Columns, labels: Sequence[str]) -> tuple[Split, list[str]]:
    """Labelled texts, and notes on rows left out. Row numbers count data rows from 1."""
    index = {label: i for i, label in enumerate(labels)}
    for name in (*columns.text, columns.label):
        if name not in rows.table.columns:
            raise DataError(f"{rows.name}: no column '{name}', which the training file has")
    texts = [text_column(rows, name) for name in columns.text]
    found = [_label(value) for value in rows.table[columns.label]]
    keep = []
    empty = 0
    for row, label in enumerate(found):
        if label not in index:
            raise DataError(_label_problem(rows.name, row + 1, label, labels))
        if all(column[row].strip() for column in texts):
            keep.append(row)
        else:
            empty += 1
    if not keep:
        raise DataError(f"{rows.name}: every text in column '{columns.text[0]}' is empty")
    notes = [f"{rows.name}: {empty:,} rows with an empty text left out"] if empty else []
    pairs = tuple(texts[1][row] for row in keep) if len(texts) == 2 else None
    split = Split(
        tuple(texts[0][row] for row in keep),
        pairs,
        np.array([index[found[row]] for row in keep], np.int64),
    )
    return split, notes


def _label_problem(name: str, row: int, label: str, labels: Sequence[str]) -> str:
    if not label:
        return f"{name}: row {row} has no label"
    return f"{name}: row {row} has label '{label}', unseen in training{did_you_mean(label, labels)}"


def text_column(rows: Rows, column: str) -> list[str]:
    """A column as texts; an object or list in it is a DataError with its row."""
    values = []
    for number, value in enumerate(rows.table[column], 1):
        if isinstance(value, (dict, list, tuple, np.ndarray)):
            raise DataError(f"{rows.name}: row {number}, column '{column}' is not text")
        values.append(_plain(value))
    return values


def _label(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _plain(value).strip()


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    return str(value)
