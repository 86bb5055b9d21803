"""Labels of another split in the terms of the training data: by name where either has indices into
names, and −1 where a label is hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from numbers import Real
from typing import Any

import pandas as pd

from peftsearch.errors import DataError, did_you_mean, listed
from peftsearch.task.columns import Columns, filled_rows
from peftsearch.task.kinds.classification import label_text, whole_number
from peftsearch.task.rows import Rows

__all__ = ["by_training_names", "named", "without_hidden"]

_HIDDEN = -1
"""What stands for a label that is not given: GLUE's test splits, SNLI's undecided pairs."""


def named(label: str, names: Sequence[str] | None) -> str:
    """The name of a label that is an index into `names`, else itself."""
    is_index = bool(names) and label.isdecimal() and int(label) < len(names or ())
    return names[int(label)] if names and is_index else label


def by_training_names(
    rows: Rows, columns: Columns, names: Sequence[str] | None, labels: Sequence[str]
) -> Rows:
    """The rows of another split, each label written as the training data write the one of its name.

    `names` are the training data's, where its cells are indices into them; `labels` are those found
    there. DataError names a label that training lacks, with its row.
    """
    own = rows.classes.get(str(columns.label))
    if (own is None and names is None) or own == names or columns.label not in rows.table.columns:
        return rows
    _, kept = filled_rows(rows, columns.text, columns.label)
    cells = rows.table[columns.label].tolist()
    found = {
        row: label_text(rows.name, rows.numbers[row], str(columns.label), cells[row])
        for row in kept
    }
    if own is not None:
        found = {row: named(label, own) for row, label in found.items()}
    found = {row: label.strip() for row, label in found.items()}
    by_number = _by_number(rows.name, found, own, names, labels)
    if by_number is not None:
        return replace(rows, notes=(*rows.notes, *by_number))
    index = {name.strip(): str(number) for number, name in enumerate(names or ())}
    written = {row: index.get(label, label) for row, label in found.items()}
    shown = [named(label, names) for label in labels]
    for row, label in written.items():
        if label and (label not in labels or (names and found[row] not in index)):
            raise DataError(_unseen(rows, row, named(found[row], names), shown))
    column = pd.Series([written.get(row, "") for row in range(len(cells))], rows.table.index)
    table = rows.table.assign(**{str(columns.label): column.astype(object)})
    note = f"{rows.name}: labels matched with the training data's by name ({listed(shown, 5)})"
    return replace(rows, table=table, notes=(*rows.notes, note))


def _by_number(
    name: str,
    found: dict[int, str],
    own: Sequence[str] | None,
    names: Sequence[str] | None,
    labels: Sequence[str],
) -> list[str] | None:
    """A note, or none, where the labels as they stand are numbers of the same labels in both; None
    where they are to be matched by name.
    """
    present = {label for label in found.values() if label}
    if own is None:
        known = {one.strip() for one in names or ()}
        numbers = {whole_number(label) for label in present}
        indices = set(map(whole_number, labels))
        return [] if not present <= known and numbers <= indices else None
    if names is None and not present & set(labels) and all(map(str.isdecimal, labels)):
        return [f"{name}: its labels have names, the training data's have none: matched by number"]
    return None


def _unseen(rows: Rows, row: int, label: str, shown: Sequence[str]) -> str:
    known = did_you_mean(label, shown) if len(shown) <= 20 else ""
    where = f"{rows.name}: data row {rows.numbers[row]}"
    return f"{where} has label '{label[:60]}', unseen in training{known}"


def without_hidden(rows: Rows, label: str | None, names: tuple[str, ...] | None) -> Rows:
    """The rows whose label is not hidden, with a note on how many are left out.

    Without class names −1 may be a label like any other, unless there is no other.
    """
    if label is None or label not in rows.table.columns:
        return rows
    hidden = rows.table[label].map(_is_hidden).astype(bool)
    if not hidden.any() or (names is None and not hidden.all()):
        return rows
    note = f"{rows.name}: {int(hidden.sum()):,} rows without a label (−1) left out"
    return replace(rows, table=rows.table[~hidden], notes=(*rows.notes, note))


def _is_hidden(value: Any) -> bool:
    return (isinstance(value, (Real, Decimal)) and value == _HIDDEN) or (
        isinstance(value, str) and whole_number(value.strip()) == _HIDDEN
    )
