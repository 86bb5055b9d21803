"""Regression: a number for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from peftsearch.errors import DataError
from peftsearch.task.kinds.base import Kind, Output
from peftsearch.task.metrics.table import metrics_for
from peftsearch.task.rows.columns import Columns, filled_rows, is_nothing, left_out
from peftsearch.task.rows.rows import Rows
from peftsearch.task.split import Split

__all__ = ["Regression"]


class Regression(Kind):
    """A number for a text or a pair of texts. Targets are float64 (n,).

    >>> rows = Rows("d.csv", pd.DataFrame({"text": ["good", "bad"], "score": ["4.5", "1"]}))
    >>> Regression().to_split(rows, Columns(("text",), "score"), ())[0].targets.tolist()
    [4.5, 1.0]
    """

    name = "regression"
    output: ClassVar[Output] = "values"
    metrics = metrics_for("values")
    target_names = ("label", "score", "rating", "target", "value", "similarity", "y")

    def to_split(
        self, rows: Rows, columns: Columns, labels: Sequence[str]
    ) -> tuple[Split, list[str]]:
        texts, kept = filled_rows(rows, columns.text, columns.label)
        values = rows.table[columns.label].tolist()
        column = str(columns.label)
        numbers = np.array(
            [_number(rows.name, rows.numbers[row], column, values[row]) for row in kept]
        )
        columns_kept = [tuple(column[row] for row in kept) for column in texts]
        pairs = columns_kept[1] if len(columns_kept) == 2 else None
        return Split(columns_kept[0], pairs, numbers), left_out(rows, len(kept))

    def check(self, split: Split, name: str) -> None:
        numbers = np.asarray(split.targets, np.float64)
        if np.ptp(numbers) == 0:
            raise DataError(f"{name}: every target is {numbers[0]:g}: there is nothing to predict")


def _number(name: str, row: int, column: str, value: Any) -> float:
    """A finite number, or a text that spells one."""
    where = f"{name}: data row {row}, column '{column}'"
    if is_nothing(value) or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where} is empty: a number is needed")
    try:
        number = float(value) if isinstance(value, (str, Real, Decimal)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{where} is not a finite number: {value!r:.60} (labels are predicted with "
            "--kind classification, texts with --kind seq2seq)"
        )
    return number
