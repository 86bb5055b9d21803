"""Classification of texts or pairs of texts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from peftsearch.errors import DataError, did_you_mean
from peftsearch.task.kinds.base import Kind, Output
from peftsearch.task.metrics.table import metrics_for
from peftsearch.task.rows.columns import Columns, filled_rows, is_nothing, left_out
from peftsearch.task.rows.rows import Rows
from peftsearch.task.split import Split
from peftsearch.wording import counted

__all__ = ["Classification", "label_order", "label_problem", "label_text", "whole_number"]

_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)(\.0*)?")


class Classification(Kind):
    """One label of a text, or of a pair of texts. Targets are indices into the labels, int64 (n,).

    >>> cells = {"text": ["good", "bad", "fine", "dull"], "label": ["yes", "no", "yes", "no"]}
    >>> rows, columns = Rows("d.csv", pd.DataFrame(cells)), Columns(("text",), "label")
    >>> labels = Classification().label_names(rows, columns)
    >>> labels, Classification().to_split(rows, columns, labels)[0].targets.tolist()
    (('no', 'yes'), [1, 0, 1, 0])
    """

    name = "classification"
    output: ClassVar[Output] = "labels"
    metrics = metrics_for("labels")
    target_names = (
        *("label", "labels", "class", "category", "sentiment", "target", "gold", "topic"),
    )
    weak_target_names = (
        *("type", "intent", "emotion", "coarse_label", "label_coarse", "label-coarse"),
        *("fine_label", "label_fine", "label-fine", "genre", "stance", "polarity", "class_label"),
        *("class_name", "label_name", "label_text", "class index", "is_spam", "toxic", "y"),
    )

    def label_names(self, rows: Rows, columns: Columns) -> tuple[str, ...]:
        """Label names in a stable order: numbers by value, others by name.

        DataError unless there are two labels, with two examples each on average; rows with an empty
        text, which are left out, do not count.
        """
        _, _, found = _labelled(rows, columns)
        present = set(_one_spelling(set(found) - {""}).values())
        where = f"{rows.name}: column '{columns.label}' holds"
        if len(present) < 2:
            only = f"only '{next(iter(present))}'" if present else "none"
            raise DataError(f"{where} {only}; two labels are needed")
        if len(found) < 2 * len(present):
            raise DataError(
                f"{where} {counted(len(present), 'label')} in {counted(len(found), 'row')}, but "
                "training needs at least two rows of each; is it the right column? "
                "(numbers are predicted with --kind regression, texts with --kind seq2seq)"
            )
        return tuple(sorted(present, key=label_order))

    def to_split(
        self, rows: Rows, columns: Columns, labels: Sequence[str]
    ) -> tuple[Split, list[str]]:
        texts, kept, found = _labelled(rows, columns)
        index = _index_of(labels, found)
        for row, label in zip(kept, found, strict=True):
            if label not in index:
                raise DataError(label_problem(rows.name, rows.numbers[row], label, labels))
        filled = [tuple(column[row] for row in kept) for column in texts]
        numbers = np.array([index[label] for label in found], np.int64)
        split = Split(filled[0], filled[1] if len(filled) == 2 else None, numbers)
        return split, left_out(rows, len(kept))

    def strata(self, split: Split) -> NDArray[np.int64]:
        return np.asarray(split.targets, np.int64)


def _labelled(rows: Rows, columns: Columns) -> tuple[list[Sequence[str]], list[int], list[str]]:
    """The text columns, the rows (from 0) in which no text is empty, and the labels of those."""
    texts, kept = filled_rows(rows, columns.text, columns.label)
    values = rows.table[columns.label].tolist()
    column = str(columns.label)
    found = [label_text(rows.name, rows.numbers[row], column, values[row]) for row in kept]
    return texts, kept, found


def _one_spelling(labels: set[str]) -> dict[str, str]:
    """Label → how it is written. 1.0 and 1 are one where every label is such a number: a column
    with gaps turns to floats.
    """
    numbers = {label: whole_number(label) for label in labels}
    if None in numbers.values() or len(set(numbers.values())) == len(labels):
        return {label: label for label in labels}
    return {label: str(number) for label, number in numbers.items()}


def _index_of(labels: Sequence[str], found: Sequence[str]) -> dict[str, int]:
    """Label → its number, of the training data's labels and those that are the same numbers."""
    index = {label: i for i, label in enumerate(labels)}
    numbers = {whole_number(label): i for label, i in index.items()}
    if None not in numbers:
        others = {label: whole_number(label) for label in set(found) - set(index)}
        index |= {label: numbers[n] for label, n in others.items() if n in numbers}
    return index


def whole_number(label: str) -> int | None:
    """The number that a label spells (`3`, `3.0`), None for any other."""
    spelt = _WHOLE.fullmatch(label) if len(label) <= 18 else None
    return int(label.partition(".")[0]) if spelt else None


def label_order(label: str) -> tuple[int, float, str]:
    """Sort key of labels: numbers by value, then others by name."""
    try:
        number = float(label)
    except ValueError:
        return 1, 0.0, label
    return (1, 0.0, label) if math.isnan(number) else (0, number, label)


def label_problem(name: str, row: int, label: str, labels: Sequence[str]) -> str:
    """A sentence on a label that is missing, or unseen in training."""
    if not label:
        return f"{name}: data row {row} has no label"
    known = did_you_mean(label, labels) if len(labels) <= 20 else ""
    return f"{name}: data row {row} has label '{label[:60]}', unseen in training{known}"


def label_text(name: str, row: int, column: str, value: Any) -> str:
    """The label in a cell: a text, a bool, or a whole number, also written 1.0 (pandas turns a
    column of integers with gaps to floats).
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return value.strip()
    if is_nothing(value):
        return ""
    if isinstance(value, Integral):  # bool is one
        return str(value)
    is_number = isinstance(value, (float, Decimal))
    if is_number and math.isfinite(value) and value == int(value):
        return str(int(value))
    shown = f"{value!r}"[:40]
    hint = " (numbers are predicted with --kind regression)" if is_number else ""
    if isinstance(value, (list, tuple, np.ndarray)):
        hint = " (sets of labels are predicted with --kind multilabel)"
    raise DataError(f"{name}: data row {row}, column '{column}' is not a label: {shown}{hint}")
