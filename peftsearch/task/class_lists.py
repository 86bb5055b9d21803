"""Lists of indices into class names, as the `datasets` library keeps sets of labels: by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from peftsearch.errors import DataError
from peftsearch.task.rows import Rows

__all__ = ["names_in_feature", "with_named_lists"]


def names_in_feature(feature: Any) -> tuple[str, ...] | None:
    """Names of the classes that lists in a column hold, from the description that the `datasets`
    library writes of it: `{"feature": {"names": […]}}`, or of old versions `[{"names": […]}]`.
    """
    inner = feature.get("feature") if isinstance(feature, dict) else feature
    if isinstance(inner, list) and len(inner) == 1:
        inner = inner[0]
    names = inner.get("names") if isinstance(inner, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else None


def with_named_lists(rows: Rows, classes: Mapping[str, tuple[str, ...]]) -> Rows:
    """The rows with names for the indices in lists; DataError where an index has no name."""
    table = rows.table
    for column, names in classes.items():
        if column not in table.columns:
            continue
        cells = table[column].tolist()
        if any(isinstance(cell, (list, np.ndarray)) for cell in cells):
            where = f"{rows.name}: data row {{}}, column '{column}'"
            named = [_named(where.format(row), cell, names) for row, cell in enumerate(cells, 1)]
            table = table.copy(deep=False)
            table[column] = pd.Series(named, table.index, dtype=object)
    return rows if table is rows.table else Rows(rows.name, table, rows.notes)


def _named(where: str, cell: Any, names: Sequence[str]) -> Any:
    if not isinstance(cell, (list, np.ndarray)):
        return cell
    values = cell.tolist() if isinstance(cell, np.ndarray) else cell
    for value in values:
        if not isinstance(value, Integral) or not 0 <= int(value) < len(names):
            raise DataError(
                f"{where} holds class {value!r:.20}, and there are names for {len(names)}"
            )
    return [names[int(value)] for value in values]
