"""JSON → rows: a list of objects, one object that holds such a list, an object of objects (rows by
their id, or columns by their rows' numbers, as pandas writes them), or an object a line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from peftsearch.errors import DataError
from peftsearch.task.rows.nested import flat_frame, refuse_twice

__all__ = ["parse_json", "parse_json_lines"]

_HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half of a UTF-16 pair, which JSON's escapes can spell and no tokenizer reads."""


def parse_json(path: str, text: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a JSON document, or of JSON lines in a .json file, as many tools write them."""
    try:
        data = _parsed(path, text)
    except ValueError as error:
        if _first_line_is_an_object(text):
            return parse_json_lines(path, text)
        raise _not_json(path, getattr(error, "lineno", 1), error) from error
    except RecursionError as error:
        raise DataError(f"{path}: nested too deeply") from error
    return _table(path, _rows_of(data) if isinstance(data, dict) else data)


def _rows_of(data: dict[str, Any]) -> list[Any]:
    lists = [value for value in data.values() if isinstance(value, list)]
    if len(lists) == 1:
        return lists[0]
    inner = [value for value in data.values() if isinstance(value, dict)]
    if len(inner) < max(2, len(data)):
        return [data]
    if all(map(str.isdecimal, inner[0])) and not all(map(str.isdecimal, data)):
        return [{column: data[column].get(row) for column in data} for row in inner[0]]
    return inner


def parse_json_lines(path: str, text: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows of JSON lines, an object each; blank lines are skipped."""
    rows = []
    for number, line in _lines(text):
        try:
            rows.append(_parsed(path, line))
        except (ValueError, RecursionError) as error:
            raise _not_json(path, number, error) from error
    return _table(path, rows)


def _parsed(path: str, text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            refuse_twice(path, (key for key, _ in pairs))
        return found

    return json.loads(text, object_pairs_hook=unique)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not str.splitlines: U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _first_line_is_an_object(text: str) -> bool:
    try:
        return isinstance(json.loads(next(_lines(text))[1]), dict)
    except (ValueError, RecursionError):
        return False


def _not_json(path: str, line: int, error: Exception) -> DataError:
    return DataError(f"{path}:{line}: not JSON ({getattr(error, 'msg', None) or error})")


def _table(path: str, rows: Any) -> tuple[pd.DataFrame, list[str]]:
    if not isinstance(rows, list):
        raise DataError(f"{path}: a list of objects was expected, not {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is not an object but {str(row)[:40]!r}")
    table = flat_frame(path, pd.DataFrame(rows, dtype=object))
    replaced = 0
    for column in table.columns:
        cells = table[column].tolist()
        halves = {
            i: _HALF_PAIR.subn("�", cell)
            for i, cell in enumerate(cells)
            if isinstance(cell, str) and _HALF_PAIR.search(cell)
        }
        if halves:
            whole = [halves[i][0] if i in halves else cell for i, cell in enumerate(cells)]
            table[column] = pd.Series(whole, table.index, dtype=object)
            replaced += sum(count for _, count in halves.values())
    notes = [f"{path}: {replaced:,} incomplete characters replaced"] if replaced else []
    return table, notes
