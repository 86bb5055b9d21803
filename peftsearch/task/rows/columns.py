"""Text and target columns: finding them by name, and reading texts out of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from peftsearch.errors import DataError, did_you_mean, listed
from peftsearch.task.rows.rows import Rows
from peftsearch.wording import counted

__all__ = [
    "HIDDEN",
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
    "left_out",
    "refuse_missing",
    "text_column",
]

HIDDEN = -1
"""Stands for a label that is withheld: in test splits (GLUE, Jigsaw), SNLI's undecided pairs."""
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
    """Text columns (two of a pair, or any number that are `one_text`) and the target column: a
    label, a list of labels, a number or a text; or several target columns of 0 and 1.
    """

    text: tuple[str, ...]
    label: str | None
    guessed_text: bool = False
    guessed_target: bool = False
    one_text: bool = False
    """True where several text columns are one text: a prompt."""
    within: str | None = None
    """Template that joins them, each as `{column}`; None: joined by a blank line."""
    labels: tuple[str, ...] = ()
    """The columns of 0 and 1; `label` is None then."""

    @property
    def guessed(self) -> bool:
        return self.guessed_text or self.guessed_target

    @property
    def targets(self) -> tuple[str, ...]:
        """The target column or columns; none where texts alone are learned."""
        return self.labels or ((self.label,) if self.label else ())

    def notes(self, rows: Rows) -> list[str]:
        """Notes for the user: the columns that were guessed, and those that are not read."""
        texts = " and ".join(f"'{name}'" for name in self.text)
        if len(self.text) > 1 and self.one_text:
            texts += " as one" if self.within else " as one, with a blank line between"
        found = []
        text = (f"text {texts}", "--text") if self.guessed_text else None
        target = (f"label '{self.label}'", "--label") if self.guessed_target else None
        guessed = [one for one in (text, target) if one is not None]
        if guessed:
            names, flags = (", ".join(part) for part in zip(*guessed, strict=True))
            found = [f"columns guessed: {names} (set them with {flags})"]
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
    _refuse_unnamed(rows, [label] if label else [])
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
    _refuse_twice(rows, (*texts, *([found] if found else [])))
    return Columns(texts, found, not text, bool(found) and not label, one_text)


def find_columns_of_flags(rows: Rows, text: Sequence[str], labels: Sequence[str]) -> Columns:
    """The text columns, and the named columns of 0 and 1; DataError if one is missing."""
    texts = find_text(rows, text)
    _refuse_unnamed(rows, labels)
    _refuse_twice(rows, (*texts, *labels))
    return Columns(texts, None, guessed_text=not text, labels=tuple(labels))


def _refuse_unnamed(rows: Rows, wanted: Sequence[str]) -> None:
    names = [str(name) for name in rows.table.columns]
    for name in wanted:
        if name not in names:
            raise DataError(f"{rows.name}: no column '{name}'{did_you_mean(name, names)}")


def _refuse_twice(rows: Rows, used: Sequence[str]) -> None:
    twice = next((name for name in used if used.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{rows.name}: column '{twice}' cannot be used twice")


def has_target_named(rows: Rows, names: Sequence[str]) -> str | None:
    """The first column that has one of `names`, ignoring case."""
    return first_of(names, [str(name) for name in rows.table.columns])


def columns_in(rows: Rows, columns: Columns, find: Callable[[Rows], Columns]) -> Columns:
    """The training data's columns in another split. Where those were guessed and the split lacks
    one, as many of its own columns are guessed by the same rules (`find`).
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
    _refuse_unnamed(rows, text)
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
    """The first wanted name that a column has, ignoring case."""
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


def left_out(rows: Rows, kept: int) -> list[str]:
    """A note on rows with an empty text, if there are any: all but `kept`."""
    empty = len(rows.table) - kept
    return [f"{rows.name}: {counted(empty, 'row')} with an empty text left out"] if empty else []


def text_column(rows: Rows, column: str) -> list[str]:
    """A column as texts, with empty ones for missing cells; DataError for any other cell, with its
    row.
    """
    values = []
    for position, value in enumerate(rows.table[column].tolist()):
        if not isinstance(value, str) and not is_nothing(value):
            kind = type(value).__name__
            where = f"{rows.name}: data row {rows.numbers[position]}, column '{column}'"
            raise DataError(f"{where} is not text but {kind}")
        values.append(value if isinstance(value, str) else "")
    return values


def is_nothing(value: Any) -> bool:
    """True for a missing cell: None, NaN, NA or NaT."""
    return (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, (float, np.floating)) and math.isnan(value))
        or (isinstance(value, Decimal) and value.is_nan())
    )
