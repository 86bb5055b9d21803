"""Matching labels of evaluation and test splits to the training labels, by class name; dropping
hidden labels (−1).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from numbers import Real
from typing import Any

import pandas as pd

from peftsearch.errors import DataError, listed
from peftsearch.task.kinds.classification import label_problem, label_text, whole_number
from peftsearch.task.rows.columns import HIDDEN, Columns, filled_rows
from peftsearch.task.rows.rows import Rows
from peftsearch.wording import counted

__all__ = ["by_training_names", "by_training_numbers", "named", "without_hidden"]


def named(label: str, names: Sequence[str] | None) -> str:
    """The class name where `label` is an index into `names`, else the label itself."""
    is_index = bool(names) and label.isdecimal() and int(label) < len(names or ())
    return names[int(label)] if names and is_index else label


def by_training_names(
    rows: Rows, columns: Columns, names: Sequence[str] | None, labels: Sequence[str]
) -> Rows:
    """The rows of another split, each label replaced by the training label of the same name.

    `names` are the training data's, where its cells are indices into them; `labels` are those found
    there. DataError names a label that training lacks, with its row.
    """
    own = rows.classes.get(str(columns.label))
    if (own is None and names is None) or own == names or columns.label not in rows.table.columns:
        return rows
    found = _labels_in(rows, columns, own)
    index = {name.strip(): str(number) for number, name in enumerate(names or ())}
    shown = [named(label, names) for label in labels]
    if not index:
        if own and not _share(found, labels) and all(map(str.isdecimal, labels)):
            return _noted(rows, "labels have names, the training data's none: matched by number")
        index = {label: label for label in labels}
    elif own is None and not _are_names(found, index, len(names or ())):
        numbers = set(map(whole_number, labels))
        _refuse_unseen(rows, found, lambda label: whole_number(label) in numbers, names, shown)
        return rows  # indices, as the training data have
    _refuse_unseen(rows, found, lambda label: index.get(label) in labels, None, shown)
    cells = [index.get(found.get(row, ""), "") for row in range(len(rows.table))]
    return _noted(
        _with_cells(rows, str(columns.label), cells),
        f"labels matched with the training data's by name ({listed(shown, 5)})",
    )


def by_training_numbers(rows: Rows, column: str, names: Sequence[str] | None) -> Rows:
    """The rows of another split, for regression on class indices: each index is replaced by the
    training data's index of the same name.
    """
    own = rows.classes.get(column)
    if own is None or names is None or own == names or column not in rows.table.columns:
        return rows
    index = {name.strip(): number for number, name in enumerate(names)}
    strange = next((name for name in own if name.strip() not in index), None)
    if strange is not None:
        raise DataError(f"{rows.name}: '{strange}' is no value of '{column}' in the training data")
    numbers = [index[name.strip()] for name in own]
    cells = [
        numbers[cell] if isinstance(cell, int) and 0 <= cell < len(own) else cell
        for cell in rows.table[column].tolist()
    ]
    return _noted(_with_cells(rows, column, cells), f"'{column}' matched by name")


def _labels_in(rows: Rows, columns: Columns, own: Sequence[str] | None) -> dict[int, str]:
    """Labels by row (from 0), as names where the split has them; without rows of an empty text."""
    _, kept = filled_rows(rows, columns.text, columns.label)
    column = str(columns.label)
    cells = rows.table[column].tolist()
    texts = {row: label_text(rows.name, rows.numbers[row], column, cells[row]) for row in kept}
    return {row: named(label, own).strip() for row, label in texts.items()}


def _share(found: Mapping[int, str], names: Collection[str]) -> bool:
    return not set(found.values()).isdisjoint(names)


def _are_names(found: Mapping[int, str], names: Collection[str], count: int) -> bool:
    """True where labels of a split without class names are the training data's names. Numbers may
    be names or indices; they are indices unless all are names.
    """
    present = set(found.values()) - {""}
    indices = set(range(count))
    are_indices = all(whole_number(label) in indices for label in present)
    return present <= set(names) or not (are_indices or present.isdisjoint(names))


def _refuse_unseen(
    rows: Rows,
    found: Mapping[int, str],
    is_known: Callable[[str], bool],
    names: Sequence[str] | None,
    shown: Sequence[str],
) -> None:
    for row, label in found.items():
        if label and not is_known(label):
            number = rows.numbers[row]
            raise DataError(label_problem(rows.name, number, named(label, names), shown))


def _with_cells(rows: Rows, column: str, cells: Sequence[Any]) -> Rows:
    written = pd.Series(cells, rows.table.index, dtype=object)
    return replace(rows, table=rows.table.assign(**{column: written}))


def _noted(rows: Rows, note: str) -> Rows:
    return replace(rows, notes=(*rows.notes, f"{rows.name}: {note}"))


def without_hidden(rows: Rows, label: str | None, names: tuple[str, ...] | None) -> Rows:
    """The rows whose label is not hidden, with a note on the number left out. `names` are the
    training data's class names: None where no labels are predicted.

    Without names −1 may be a label like any other, unless there is no other.
    """
    if label is None or label not in rows.table.columns:
        return rows
    if names is not None:
        names = names or rows.classes.get(label)
    hidden = rows.table[label].map(_is_hidden).astype(bool)
    if not hidden.any() or (not names and not hidden.all()):
        return rows
    note = f"{rows.name}: {counted(int(hidden.sum()), 'row')} without a label (−1) left out"
    return replace(rows, table=rows.table[~hidden], notes=(*rows.notes, note))


def _is_hidden(value: Any) -> bool:
    return (isinstance(value, (Real, Decimal)) and value == HIDDEN) or (
        isinstance(value, str) and whole_number(value.strip()) == HIDDEN
    )
