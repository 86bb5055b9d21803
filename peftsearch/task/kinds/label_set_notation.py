"""Notations of label sets: columns of 0 and 1, lists, or texts with separators."""

from __future__ import annotations

import ast
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np

from peftsearch.errors import DataError
from peftsearch.task.rows.columns import HIDDEN, Columns, is_nothing
from peftsearch.task.rows.rows import Rows

__all__ = [
    "Flags",
    "Lists",
    "Notation",
    "Separated",
    "Vectors",
    "holds_lists",
    "is_hidden",
    "notation_of",
]

MARKS = ("|", ";", ",")
"""Separators of labels in a text; the first that any of the texts holds is used."""

_WORDS = {"false": False, "true": True}
_BRACKETS = ("[]", "()", "{}")
"""Brackets of lists, tuples and sets as JSON and Python print them."""
_NO_LABELS = "set()"
_ADJACENT = re.compile(r"['\"]\s+['\"]")
"""A list of texts as NumPy prints it, without commas: Python would join its texts into one."""


class Notation(ABC):
    """A notation for sets of labels: found in the training rows, used for every split."""

    labels: tuple[str, ...] = ()
    """The labels that the form itself names; empty where they are those that occur."""

    @abstractmethod
    def read(self, cells: Sequence[Any]) -> list[str] | None:
        """The labels in a row's target cells, None where they are hidden; ValueError if the cells
        do not fit.
        """

    def note(self, column: str) -> str | None:
        """A note for the user on the interpretation of the column."""
        return None


@dataclass(frozen=True)
class Flags(Notation):
    """A column of 0 and 1 for each label."""

    labels: tuple[str, ...]

    def read(self, cells: Sequence[Any]) -> list[str] | None:
        if all(is_hidden(cell) for cell in cells):
            return None
        return [
            label
            for label, cell in zip(self.labels, cells, strict=True)
            if _flag(f"column '{label}'", cell)
        ]


@dataclass(frozen=True)
class Lists(Notation):
    """A list of labels, or (in csv) a text that spells one as JSON or Python does."""

    def read(self, cells: Sequence[Any]) -> list[str]:
        return [_label(value) for value in _list_in(cells[0])]


@dataclass(frozen=True)
class Vectors(Notation):
    """A list with 0 or 1 for each label; labels are named by their index."""

    labels: tuple[str, ...]

    def read(self, cells: Sequence[Any]) -> list[str]:
        values = _list_in(cells[0])
        if len(values) != len(self.labels):
            raise ValueError(
                f"holds a list of {len(values)}, where others have {len(self.labels)} entries of 0 "
                "or 1"
            )
        pairs = zip(self.labels, values, strict=True)
        return [label for label, value in pairs if _flag(f"holds a list whose {label}", value)]

    def note(self, column: str) -> str:
        last = self.labels[-1]
        return f"column '{column}' is read as 0 or 1 for each of the labels 0 to {last}"


@dataclass(frozen=True)
class Separated(Notation):
    """A text with a mark between labels; an empty one is the empty set."""

    mark: str | None

    def read(self, cells: Sequence[Any]) -> list[str]:
        (cell,) = cells
        if is_nothing(cell):
            return []
        if _is_list(cell):
            raise ValueError("holds a list, where other rows hold texts")
        if not isinstance(cell, str):
            return [_label(cell)]
        pieces = cell.split(self.mark) if self.mark else [cell]
        return [_whole(piece.strip()) for piece in pieces if piece.strip()]

    def note(self, column: str) -> str:
        if self.mark is None:
            marks = " ".join(MARKS)
            return f"column '{column}': no text has a separator ({marks}): each is one label"
        return f"column '{column}': labels are separated by '{self.mark}'"


def notation_of(rows: Rows, columns: Columns) -> Notation:
    """The training rows' notation of label sets; DataError if they have none."""
    if columns.labels:
        return Flags(columns.labels)
    where = f"{rows.name}: column '{columns.label}'"
    cells = [cell for cell in rows.table[columns.label].tolist() if not _is_blank(cell)]
    if not cells:
        raise DataError(f"{where} is empty")
    if any(map(_is_list, cells)) or all(map(_spells_a_list, cells)):
        width = _width_of_vectors(cells)
        return Vectors(tuple(map(str, range(width)))) if width else Lists()
    if not all(isinstance(cell, str) for cell in cells) or all(map(_is_flag, cells)):
        raise DataError(
            f"{where} holds neither lists nor texts with separators: sets of labels are lists, "
            "texts as a|b, or several columns of 0 and 1 (--label for each); one label a text is "
            "--kind classification"
        )
    return Separated(next((mark for mark in MARKS if any(mark in cell for cell in cells)), None))


def holds_lists(rows: Rows, column: str) -> bool:
    """True where a column has a list in any cell."""
    return column in rows.table.columns and any(map(_is_list, rows.table[column].tolist()))


def _is_list(cell: Any) -> bool:
    return isinstance(cell, (list, tuple, np.ndarray))


def _is_blank(cell: Any) -> bool:
    return is_nothing(cell) or (isinstance(cell, str) and not cell.strip())


def _spells_a_list(cell: Any) -> bool:
    text = cell.strip() if isinstance(cell, str) else ""
    return text[:1] + text[-1:] in _BRACKETS or text == _NO_LABELS


def _list_in(cell: Any) -> list[Any]:
    if _is_blank(cell):
        raise ValueError("holds no list of labels: write [] where there are none")
    if _spells_a_list(cell):
        return _spelled(cell.strip())
    if not _is_list(cell):
        raise ValueError(f"is not a list: {cell!r:.60}")
    return list(cell.tolist() if isinstance(cell, np.ndarray) else cell)


def _spelled(text: str) -> list[Any]:
    """A list out of a text: of JSON, or as Python prints it, a tuple or a set too."""
    if text == _NO_LABELS:
        return []
    found = _parsed(text)
    if not isinstance(found, (list, tuple, set)):
        raise ValueError(f'is not a list as ["a", "b"]: {text[:60]}')
    return list(found)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return None if _ADJACENT.search(text) else ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _width_of_vectors(cells: Sequence[Any]) -> int:
    """Length of the lists where they are vectors of 0 and 1; 0 if they hold labels.

    Equally long lists of nothing but 0 and 1 are taken for vectors: as sets of labels, those longer
    than 1 would each be {0, 1}, or repeat a label.
    """
    width = 0
    for cell in cells:
        try:
            values = _list_in(cell)
            for value in values:
                _flag("", value)
        except ValueError:
            return 0
        if len(values) < 2 or (width and len(values) != width):
            return 0
        width = len(values)
    return width


def _flag(where: str, cell: Any) -> bool:
    if _is_blank(cell):
        raise ValueError(f"{where} is empty: 0 or 1 is needed")
    number = _number(cell)
    if number not in (0, 1):
        raise ValueError(f"{where} is not 0 or 1: {cell!r:.60}")
    return bool(number)


def _is_flag(cell: Any) -> bool:
    return _number(cell) in (0, 1)


def is_hidden(cell: Any) -> bool:
    """True for the mark of a label that is withheld."""
    return _number(cell) == HIDDEN


def _number(cell: Any) -> float | None:
    """The value of a number, of a text that spells one, or of false or true; else None."""
    if not isinstance(cell, (str, Number, np.bool_)):
        return None
    text = str(cell).strip().lower()
    try:
        return float(_WORDS.get(text, text))
    except ValueError:
        return None


def _label(value: Any) -> str:
    """The label as text: of a text, a whole number (1.0 too) or a bool; else ValueError."""
    if isinstance(value, str) and value.strip():
        return _whole(value.strip())
    if isinstance(value, (bool, np.bool_)):
        return str(value)
    if isinstance(value, Number) and not isinstance(value, complex) and _is_integral(value):
        return str(int(value))  # type: ignore[call-overload]
    raise ValueError(f"holds a list with no label but {value!r:.60}")


def _is_integral(value: Any) -> bool:
    try:
        return bool(value == int(value))
    except (TypeError, ValueError, OverflowError):  # nan, inf
        return False


def _whole(label: str) -> str:
    """Replace lone surrogates, which JSON escapes can spell and UTF-8 files cannot hold."""
    return label.encode("utf-8", "replace").decode()
