"""Nested columns: `translation: {en, ro}` becomes `translation.en` and `translation.ro`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from peftsearch.errors import DataError
from peftsearch.task.rows.columns import is_nothing

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["flat_frame", "frame_of", "refuse_twice"]

_MOST_FIELDS = 64
"""A column with more keys than this is a map (such as words → counts), not nested columns."""


def frame_of(name: str, table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a flat table of plain objects; DataError if two columns share a name."""
    import pyarrow as pa

    try:
        table.validate(full=True)  # offsets and UTF-8: reading on would read other memory
        return _flattened(name, table)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name}: its columns are damaged ({why})") from error


def _flattened(name: str, table: pa.Table) -> pd.DataFrame:
    import pyarrow as pa

    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    refuse_twice(name, table.column_names)
    # Column by column, without pandas' metadata: what was an index is a column like any other.
    columns = {name: _cells(table.column(name)) for name in table.column_names}
    return pd.DataFrame(columns, index=range(table.num_rows), dtype=object)


@dataclass(frozen=True)
class Unreadable:
    """A cell of a type that Python cannot hold: a date in the year 5881580, a strange time zone."""

    kind: str

    def __repr__(self) -> str:
        return f"a value of {self.kind}"


def _cells(column: pa.ChunkedArray) -> pd.Series[Any]:
    import pyarrow as pa

    try:
        # As objects, for a float has no room for every int64.
        cells: pd.Series[Any] = column.to_pandas(integer_object_nulls=True).astype(object)
        return cells
    except UnicodeDecodeError:
        raise
    except (pa.ArrowException, ValueError, OverflowError):
        return pd.Series([Unreadable(str(column.type))] * len(column), dtype=object)


def flat_frame(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table of JSON values as a flat table; DataError if two columns share a name."""
    columns = {str(column): table[column].tolist() for column in table.columns}
    flat = list(_flat(columns))
    if [column for column, _ in flat] == list(columns):
        return table
    refuse_twice(name, (column for column, _ in flat))
    return pd.DataFrame(dict(flat), dtype=object)


def _flat(columns: dict[str, list[Any]]) -> Iterable[tuple[str, list[Any]]]:
    for name, cells in columns.items():
        fields = _fields(cells)
        if not fields:
            yield name, cells
            continue
        inner = {
            f"{name}.{field}": [
                cell.get(field) if isinstance(cell, dict) else None for cell in cells
            ]
            for field in fields
        }
        yield from _flat(inner)


def _fields(cells: list[Any]) -> list[str]:
    """The keys of a column of objects, in order of appearance; empty for any other column."""
    fields: dict[str, None] = {}
    for cell in cells:
        if isinstance(cell, dict):
            fields.update(dict.fromkeys(cell))
        elif not is_nothing(cell):
            return []
        if len(fields) > _MOST_FIELDS:
            return []
    return list(fields)


def refuse_twice(name: str, columns: Iterable[str]) -> None:
    """DataError if two columns share a name."""
    twice = next((column for column, count in Counter(columns).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{name}: two columns are called '{twice}'; rename one")
