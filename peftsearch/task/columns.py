"""Which columns hold the texts and the label, and turning rows into labelled texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from peftsearch.errors import DataError, did_you_mean
from peftsearch.task.rows import Rows
from peftsearch.task.text import Split

__all__ = [
    "Columns",
    "columns_in",
    "find_columns",
    "find_text",
    "label_names",
    "text_column",
    "to_split",
]

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
    found = label or _first_of(_LABEL_NAMES, names)
    if found is None:
        listed = ", ".join(names)
        raise DataError(f"{rows.name}: name the label column (--label); columns are: {listed}")
    used = (*texts, found)
    twice = next((name for name in used if used.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{rows.name}: column '{twice}' cannot be used twice")
    return Columns(texts, found, guessed=not text or not label)


def columns_in(rows: Rows, columns: Columns, text: Sequence[str], label: str | None) -> Columns:
    """The training data's columns in another split. Where they were guessed and it names its own
    otherwise, as many of its own are guessed by the same rules.
    """
    names = [str(name) for name in rows.table.columns]
    if not columns.guessed or {*columns.text, columns.label} <= set(names):
        return columns
    try:
        own = find_columns(rows, text, label)
    except DataError:
        return columns
    return own if len(own.text) == len(columns.text) else columns


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
        found = [_first_of((name,), names) for name in pair]
        if all(found):
            return tuple(name for name in found if name)
    single = _first_of(_TEXT_NAMES, names)
    return (single,) if single else ()


def _first_of(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """The first wanted name that a column has, whatever its capitals."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in wanted if name in lower), None)


def label_names(rows: Rows, columns: Columns) -> tuple[str, ...]:
    """Label names in a stable order: numbers by value, others by name.

    At least two, and at least two examples of each on average: rows with an empty text, which
    are left out, do not count.
    """
    _, found = _labelled(rows, columns)
    present = set(found.values()) - {""}
    where = f"{rows.name}: column '{columns.label}' holds"
    if len(present) < 2:
        only = f"only '{next(iter(present))}'" if present else "none"
        raise DataError(f"{where} {only}; two labels are needed")
    if len(found) < 2 * len(present):
        raise DataError(
            f"{where} {len(present):,} labels in {len(found):,} rows, and two rows of each are the "
            "least that can be learned from; is it the right column?"
        )
    return tuple(sorted(present, key=_label_order))


def _label_order(label: str) -> tuple[int, float, str]:
    try:
        number = float(label)
    except ValueError:
        return 1, 0.0, label
    return (1, 0.0, label) if math.isnan(number) else (0, number, label)


def to_split(rows: Rows, columns: Columns, labels: Sequence[str]) -> tuple[Split, list[str]]:
    """Labelled texts, and notes on rows left out. Errors count data rows from 1: no header."""
    index = {label: i for i, label in enumerate(labels)}
    texts, found = _labelled(rows, columns)
    for row, label in found.items():
        if label not in index:
            raise DataError(_label_problem(rows.name, row + 1, label, labels))
    empty = len(rows.table) - len(found)
    notes = [f"{rows.name}: {empty:,} rows with an empty text left out"] if empty else []
    kept = [tuple(column[row] for row in found) for column in texts]
    numbers = np.array([index[label] for label in found.values()], np.int64)
    return Split(kept[0], kept[1] if len(kept) == 2 else None, numbers), notes


def _labelled(rows: Rows, columns: Columns) -> tuple[list[list[str]], dict[int, str]]:
    """The text columns, and row (from 0) → label for the rows in which no text is empty."""
    for name in (*columns.text, columns.label):
        if name not in rows.table.columns:
            raise DataError(f"{rows.name}: no column '{name}', which the training data have")
    texts = [text_column(rows, name) for name in columns.text]
    values = rows.table[columns.label].tolist()
    found = {
        row: _label(rows.name, row + 1, columns.label, value)
        for row, value in enumerate(values)
        if all(column[row].strip() for column in texts)
    }
    if rows.table.empty:
        raise DataError(f"{rows.name}: no rows with a label")
    if not found:
        raise DataError(f"{rows.name}: every text in column '{columns.text[0]}' is empty")
    return texts, found


def _label_problem(name: str, row: int, label: str, labels: Sequence[str]) -> str:
    if not label:
        return f"{name}: data row {row} has no label"
    known = did_you_mean(label, labels) if len(labels) <= 20 else ""
    return f"{name}: data row {row} has label '{label[:60]}', unseen in training{known}"


def text_column(rows: Rows, column: str) -> list[str]:
    """A column as texts, nothing as an empty one; anything else is a DataError with its row."""
    values = []
    for number, value in enumerate(rows.table[column].tolist(), 1):
        if not isinstance(value, str) and not _is_nothing(value):
            kind = type(value).__name__
            where = f"{rows.name}: data row {number}, column '{column}'"
            raise DataError(f"{where} is not text but {kind}")
        values.append(value if isinstance(value, str) else "")
    return values


def _label(name: str, row: int, column: str, value: Any) -> str:
    """A label is a text, a whole number (1.0 too: a column with gaps turns to floats), a bool."""
    if isinstance(value, str):
        return value.strip()
    if _is_nothing(value):
        return ""
    if isinstance(value, Integral):  # bool is one
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    shown = f"{value!r}"[:40]
    raise DataError(f"{name}: data row {row}, column '{column}' is not a label: {shown}")


def _is_nothing(value: Any) -> bool:
    return (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, float) and math.isnan(value))
    )
