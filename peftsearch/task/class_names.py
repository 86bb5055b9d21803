"""Names of labels where the data hold indices into them, and −1 where a label is hidden."""

from __future__ import annotations

import json
from collections.abc import Mapping
from numbers import Real
from typing import Any

from peftsearch.task.assemble import kind_of
from peftsearch.task.columns import find_columns
from peftsearch.task.folders import arrow_schema
from peftsearch.task.rows import Rows
from peftsearch.task.spec import TaskSpec
from peftsearch.wording import counted

__all__ = ["class_names_in", "label_of", "names_of", "without_hidden"]

_HIDDEN = -1
"""What stands for a label that is not given: GLUE's test splits, SNLI's undecided pairs."""


def class_names_in(path_text: str) -> dict[str, tuple[str, ...]]:
    """Column → names of its labels, as the `datasets` library writes them into Arrow folders and
    parquet files; empty for files of other kinds. Reads no rows.
    """
    schema = arrow_schema(path_text)
    written = (schema.metadata or {}).get(b"huggingface") if schema is not None else None
    try:
        features = json.loads(written)["info"]["features"] if written else {}
        return {
            str(column): tuple(map(str, f["names"])) for column, f in features.items() if _named(f)
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # written by something else


def _named(feature: Any) -> bool:
    return isinstance(feature, dict) and isinstance(feature.get("names"), list)


def label_of(spec: TaskSpec, train: Rows) -> str | None:
    """The column of what is predicted, named or guessed as `assemble` will."""
    kind, _ = kind_of(spec, train)
    return find_columns(train, spec.text, spec.label, kind.target_names, kind.needs_target).label


def names_of(
    spec: TaskSpec, train: Rows, label: str | None, classes: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...] | None:
    """The names of the labels in column `label`, where labels are predicted."""
    kind, _ = kind_of(spec, train)
    return classes.get(label) or None if label and kind.output == "labels" else None


def without_hidden(rows: Rows, label: str | None, names: tuple[str, ...] | None) -> Rows:
    """The rows whose label is not hidden, with a note on how many are left out.

    Without class names −1 may be a label like any other, unless there is no other.
    """
    if label is None or label not in rows.table.columns:
        return rows
    hidden = rows.table[label].map(_is_hidden).astype(bool)
    if not hidden.any() or (names is None and not hidden.all()):
        return rows
    note = f"{rows.name}: {counted(int(hidden.sum()), 'row')} without a label (−1) left out"
    return Rows(rows.name, rows.table[~hidden], (*rows.notes, note))


def _is_hidden(value: Any) -> bool:
    return isinstance(value, Real) and value == _HIDDEN
