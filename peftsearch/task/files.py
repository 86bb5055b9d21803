"""Local files: csv, tsv, json, jsonl, parquet → rows. Bad input becomes one clear sentence."""

from __future__ import annotations

import codecs
import csv
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pandas as pd

from peftsearch.errors import DataError, did_you_mean
from peftsearch.task.json_rows import parse_json, parse_json_lines
from peftsearch.task.rows import Rows

__all__ = ["read_rows"]

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""What a spreadsheet's "Unicode text" begins with (UTF-32's other mark begins with UTF-16's)."""


def read_rows(path_text: str) -> Rows:
    """Read one file by its extension; DataError says what is wrong with it."""
    path = Path(path_text)
    try:
        path = path.expanduser()
        if path.is_dir():
            raise DataError(f"{path_text}: a folder; give a file ({', '.join(_READERS)})")
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            hint = did_you_mean(path.suffix.lower(), _READERS)
            raise DataError(f"{path_text}: unknown kind of file '{path.suffix}'{hint}")
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path_text}: no such file{_nearest(path)}") from error
    except (OSError, RuntimeError, ValueError) as error:  # too long, an unknown ~user, a NUL
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path_text[:100]}: cannot be read ({why})") from error
    if not content.strip():
        raise DataError(f"{path_text}: the file is empty")
    table, notes = reader(path_text, content)
    if table.empty:
        raise DataError(f"{path_text}: the file has no rows")
    return Rows(path.name, table, tuple(notes))


def _nearest(path: Path) -> str:
    near = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, near)
    return hint if "mean" in hint else ""  # not the list of a whole folder


_Read = tuple[pd.DataFrame, list[str]]


def _text(path: str, content: bytes) -> tuple[str, list[str]]:
    """UTF-8, with what is not replaced and counted rather than fatal."""
    if content.startswith(_WIDE):
        raise DataError(f"{path}: UTF-16 or UTF-32 text; save it as UTF-8")
    text = content.decode("utf-8-sig", errors="replace")
    replaced = text.count("�") - content.count("�".encode())
    note = f"{path}: {replaced:,} invalid UTF-8 sequences replaced"
    return text, [note] if replaced > 0 else []


def _delimited(separator: str) -> Callable[[str, bytes], _Read]:
    def read(path: str, content: bytes) -> _Read:
        text, notes = _text(path, content)
        table = _parse_delimited(path, text, separator)
        table.columns = table.columns.str.strip()
        header = table.columns[0]
        other = next((mark for mark in ",;\t|" if mark != separator and mark in header), None)
        if len(table.columns) == 1 and other is not None:
            raise DataError(
                f"{path}: one column, '{header}': are they separated by {other!r}? "
                "(commas in .csv, tabs in .tsv)"
            )
        return table.fillna(""), notes

    return read


def _parse_delimited(path: str, text: str, separator: str) -> pd.DataFrame:
    # Tab-separated files (GLUE's) do not quote.
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
    try:
        with warnings.catch_warnings():
            # With index_col=False a first row longer than the header is only warned of; without
            # it, its first field would silently become an index and every column move by one.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.StringIO(text),
                sep=separator,
                quoting=quoting,
                dtype=str,
                keep_default_na=False,
                na_values=[],
                index_col=False,
                engine="c",
            )
    except pd.errors.ParserWarning as error:
        raise DataError(f"{path}: rows have more fields than the header names") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        what = " ".join(str(error).replace("Error tokenizing data. C error: ", "").split())
        raise DataError(f"{path}: not a readable table ({what})") from error


def _json(path: str, content: bytes) -> _Read:
    text, notes = _text(path, content)
    table, more = parse_json(path, text)
    return table, notes + more


def _json_lines(path: str, content: bytes) -> _Read:
    text, notes = _text(path, content)
    table, more = parse_json_lines(path, text)
    return table, notes + more


def _parquet(path: str, content: bytes) -> _Read:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without pandas' metadata a column that was an index is a column like any other.
        table = pq.read_table(io.BytesIO(content)).to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable parquet file ({why})") from error
    return table.astype(object), []


_READERS: dict[str, Callable[[str, bytes], _Read]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
