"""Which columns hold the texts and what is predicted, and reading texts out of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from peftsearch.errors import DataError, did_you_mean, listed
from peftsearch.task.rows import Rows

__all__ = [
    "Columns",
    "columns_in",
    "filled_rows",
    "find_columns",
    "find_columns_of_flags",
    "find_text",
    "first_of",
    "has_target_named",
    "is_nothing",
    "kept_rows",
    "refuse_missing",
    "text_column",
]

_TEXT_NAMES = (
    *("text", "sentence", "content", "tweet", "document", "article", "review", "source", "prompt"),
    *("instruction", "input", "question"),
)
_PAIR_NAMES = (
    ("sentence1", "sentence2"),
    ("text_a", "text_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)


@dataclass(frozen=True)
class Columns:
    """Text columns (two of a pair, or any number that are `one_text`), and that of what is
    predicted: a label, a list of labels, a number, a text, or several columns of 0 and 1.
    """

    text: tuple[str, ...]
    label: str | None
    guessed: bool = False
    one_text: bool = False
    """Whether several text columns are one text: a prompt."""
    within: str | None = None
    """How they are put together, each as `{column}`; None: with a blank line between."""
    labels: tuple[str, ...] = ()
    """The columns of 0 and 1; `label` is None then."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The column of what is predicted, or several; none where texts alone are learned."""
        return self.labels or ((self.label,) if self.label else ())

    def notes(self, rows: Rows) -> list[str]:
        """For people: which columns are read, where that was guessed, and which are not."""
        texts = " and ".join(f"'{name}'" for name in self.text)
        if len(self.text) > 1 and self.one_text:
            texts += " as one" if self.within else " as one, with a blank line between"
        found = []
        if self.guessed:
            label = "".join(f", label '{name}'" for name in self.targets)
            found = [f"columns guessed: text {texts}{label} (set them with --text, --label)"]
        elif len(self.text) > 1 and self.one_text:
            found = [f"text: {texts}"]
        used = {*self.text, *self.targets}
        unread = [f"'{name}'" for name in map(str, rows.table.columns) if name not in used]
        return found + ([f"{rows.name}: not read: {listed(unread, 12)}"] if unread else [])


def find_columns(
    rows: Rows,
    text: Sequence[str],
    label: str | None,
    target_names: Sequence[str],
    needs_target: bool = True,
    one_text: bool = False,
) -> Columns:
    """The named columns, or a guess from their names; DataError if neither is possible."""
    names = [str(name) for name in rows.table.columns]
    texts = find_text(rows, text, one_text)
    if label and label not in names:
        raise DataError(f"{rows.name}: no column '{label}'{did_you_mean(label, names)}")
    unused = [name for name in names if name not in texts]
    found = label or first_of(target_names, unused)
    if found is None and needs_target:
        if not unused:
            raise DataError(
                f"{rows.name}: texts alone, in column '{texts[0]}', and nothing that is predicted "
                "of them: give labels in a column beside them (--separator says what is between), "
                "or train on the texts with --kind causal"
            )
        raise DataError(
            f"{rows.name}: name the label column (--label) or the kind of task (--kind); "
            f"columns are: {listed(names)}"
        )
    used = (*texts, *([found] if found else []))
    twice = next((name for name in used if used.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{rows.name}: column '{twice}' cannot be used twice")
    return Columns(texts, found, not text or (bool(found) and not label), one_text)


def find_columns_of_flags(rows: Rows, text: Sequence[str], labels: Sequence[str]) -> Columns:
    """The text columns, and the named columns of 0 and 1; DataError if one is missing."""
    names = [str(name) for name in rows.table.columns]
    texts = find_text(rows, text)
    missing = next((name for name in labels if name not in names), None)
    if missing is not None:
        raise DataError(f"{rows.name}: no column '{missing}'{did_you_mean(missing, names)}")
    used = (*texts, *labels)
    twice = next((name for name in used if used.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{rows.name}: column '{twice}' cannot be used twice")
    return Columns(texts, None, guessed=not text, labels=tuple(labels))


def has_target_named(rows: Rows, names: Sequence[str]) -> str | None:
    """The first column that has one of `names`, whatever its capitals."""
    return first_of(names, [str(name) for name in rows.table.columns])


def columns_in(rows: Rows, columns: Columns, find: Callable[[Rows], Columns]) -> Columns:
    """The training data's columns in another split. Where they were guessed and it names its own
    otherwise, as many of its own are guessed by the same rules (`find`).
    """
    names = {str(name) for name in rows.table.columns}
    used = {*columns.text, *columns.targets}
    if not columns.guessed or used <= names:
        return columns
    try:
        own = find(rows)
    except DataError:
        return columns
    return own if own.one_text or len(own.text) == len(columns.text) else columns


def find_text(rows: Rows, text: Sequence[str], one_text: bool = False) -> tuple[str, ...]:
    """The named text columns (one or two, or more that are one text), or a guess from the columns'
    names.
    """
    names = [str(name) for name in rows.table.columns]
    for name in text:
        if name not in names:
            raise DataError(f"{rows.name}: no column '{name}'{did_you_mean(name, names)}")
    if len(text) > 2 and not one_text:
        raise DataError(f"{len(text)} text columns were given; one or two can be used")
    texts = tuple(text) or _guess_text(names)
    if not texts:
        raise DataError(f"{rows.name}: name the text column (--text); columns are: {listed(names)}")
    return texts


def _guess_text(names: Sequence[str]) -> tuple[str, ...]:
    for pair in _PAIR_NAMES:
        found = [first_of((name,), names) for name in pair]
        if all(found):
            return tuple(name for name in found if name)
    single = first_of(_TEXT_NAMES, names)
    return (single,) if single else ()


def first_of(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """The first wanted name that a column has, whatever its capitals."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in wanted if name in lower), None)


def filled_rows(
    rows: Rows, names: Sequence[str], target: str | None
) -> tuple[list[Sequence[str]], list[int]]:
    """The named text columns, and the rows (from 0) in which none of them is empty."""
    refuse_missing(rows, (*names, *([target] if target else [])))
    texts: list[Sequence[str]] = [text_column(rows, name) for name in names]
    return texts, kept_rows(rows, dict(zip(names, texts, strict=True)))


def refuse_missing(rows: Rows, names: Sequence[str]) -> None:
    """DataError for a column that a split beside the training data lacks."""
    for name in names:
        if name not in rows.table.columns:
            raise DataError(f"{rows.name}: no column '{name}', which the training data have")


def kept_rows(rows: Rows, texts: Mapping[str, Sequence[str]]) -> list[int]:
    """The rows (from 0) in which no text is empty, by column; DataError if there is none."""
    if rows.table.empty:
        raise DataError(f"{rows.name}: no rows with a label")
    cells = zip(*texts.values(), strict=True)
    kept = [row for row, own in enumerate(cells) if all(map(str.strip, own))]
    if not kept:
        empty = (name for name, column in texts.items() if not any(map(str.strip, column)))
        shown = next(empty, next(iter(texts)))
        raise DataError(f"{rows.name}: every text in column '{shown}' is empty")
    return kept


def text_column(rows: Rows, column: str) -> list[str]:
    """A column as texts, nothing as an empty one; anything else is a DataError with its row."""
    values = []
    for position, value in enumerate(rows.table[column].tolist()):
        if not isinstance(value, str) and not is_nothing(value):
            kind = type(value).__name__
            where = f"{rows.name}: data row {rows.numbers[position]}, column '{column}'"
            raise DataError(f"{where} is not text but {kind}")
        values.append(value if isinstance(value, str) else "")
    return values


def is_nothing(value: Any) -> bool:
    """Whether a cell holds what tables write for nothing."""
    return (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, (float, np.floating)) and math.isnan(value))
        or (isinstance(value, Decimal) and value.is_nan())
    )
