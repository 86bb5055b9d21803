"""Local files: csv, tsv, json, jsonl, parquet → rows. Bad input becomes one clear sentence."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from peftsearch.errors import DataError, did_you_mean
from peftsearch.task.rows import Rows

__all__ = ["read_rows"]


def read_rows(path_text: str) -> Rows:
    """Read one file by its extension; DataError or MissingError says what is wrong with it."""
    path = Path(path_text).expanduser()
    if path.is_dir():
        raise DataError(f"{path_text}: a folder; give a file ({', '.join(_READERS)})")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        hint = did_you_mean(path.suffix.lower(), _READERS)
        raise DataError(f"{path_text}: unknown kind of file '{path.suffix}'{hint}")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        near = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, near) if near else ""
        raise DataError(f"{path_text}: no such file{hint if 'mean' in hint else ''}") from error
    except OSError as error:
        raise DataError(f"{path_text}: cannot be read ({error.strerror})") from error
    if not content.strip():
        raise DataError(f"{path_text}: the file is empty")
    table, notes = reader(path_text, content)
    if table.empty:
        raise DataError(f"{path_text}: the file has no rows")
    return Rows(path.name, table, tuple(notes))


_Read = tuple[pd.DataFrame, list[str]]


def _text(path: str, content: bytes) -> tuple[str, list[str]]:
    """UTF-8, with what is not replaced and counted rather than fatal."""
    text = content.decode("utf-8-sig", errors="replace")
    replaced = text.count("�") - content.count("�".encode())
    note = f"{path}: {replaced:,} invalid UTF-8 sequences replaced"
    return text, [note] if replaced > 0 else []


def _delimited(separator: str) -> Callable[[str, bytes], _Read]:
    def read(path: str, content: bytes) -> _Read:
        text, notes = _text(path, content)
        # Tab-separated files (GLUE's) do not quote.
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
        try:
            table = pd.read_csv(
                io.StringIO(text),
                sep=separator,
                quoting=quoting,
                dtype=str,
                keep_default_na=False,
                na_values=[],
                engine="c",
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
            what = " ".join(str(error).replace("Error tokenizing data. C error: ", "").split())
            raise DataError(f"{path}: not a readable table ({what})") from error
        return table.fillna(""), notes

    return read


def _json(path: str, content: bytes) -> _Read:
    text, notes = _text(path, content)
    try:
        data = json.loads(text)
    except ValueError:
        return _json_lines(path, content)
    except RecursionError as error:
        raise DataError(f"{path}: nested too deeply") from error
    if isinstance(data, dict):
        lists = [v for v in data.values() if isinstance(v, list)]
        data = lists[0] if len(lists) == 1 else [data]
    return _table(path, data), notes


def _json_lines(path: str, content: bytes) -> _Read:
    text, notes = _text(path, content)
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number}: not JSON ({error})") from error
    return _table(path, rows), notes


def _table(path: str, rows: Any) -> pd.DataFrame:
    if not isinstance(rows, list):
        raise DataError(f"{path}: a list of objects was expected, not {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is not an object but {str(row)[:40]!r}")
    return pd.DataFrame(rows, dtype=object)


def _parquet(path: str, content: bytes) -> _Read:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(content)).to_pandas()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable parquet file ({str(error).splitlines()[0]})"
        ) from error
    return table.astype(object), []


_READERS: dict[str, Callable[[str, bytes], _Read]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
