"""Local data → rows: csv, tsv, json, jsonl, parquet, `save_to_disk` folders, parallel text.

Bad input becomes one clear sentence.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pandas as pd

from peftsearch.errors import DataError, did_you_mean
from peftsearch.task.folders import read_folder
from peftsearch.task.json_rows import parse_json, parse_json_lines
from peftsearch.task.nested import frame_of
from peftsearch.task.parallel import parallel_paths, read_parallel
from peftsearch.task.plain_text import decoded
from peftsearch.task.rows import Rows

__all__ = ["read_rows"]


def read_rows(path_text: str, header: bool = True) -> Rows:
    """Read a file by its extension, a folder, or two files of parallel text (`news.en,news.ro`);
    DataError says what is wrong with it.

    Without `header` the columns of csv and tsv are named "1", "2", ….
    """
    path, pair = Path(path_text), None
    try:
        pair = parallel_paths(path_text)
        if pair is not None:
            return read_parallel(pair, _READERS)
        path = path.expanduser()
        if path.is_dir():
            return read_folder(path_text)
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            raise DataError(f"{path_text}: {_unknown(path)}")
        content = path.read_bytes()
    except FileNotFoundError as error:
        if pair is None:
            raise DataError(f"{path_text}: no such file{_nearest(path)}") from error
        missing = Path(str(error.filename))
        near = _nearest(missing) or " (a comma joins the names of two)"
        raise DataError(f"{missing}: no such file{near}") from error
    except (OSError, RuntimeError, ValueError) as error:  # too long, an unknown ~user, a NUL
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path_text[:100]}: cannot be read ({why})") from error
    if not content.strip():
        raise DataError(f"{path_text}: the file is empty")
    table, notes = reader(path_text, content, header)
    if table.empty:
        raise DataError(f"{path_text}: the file has no rows")
    return Rows(path.name, table, tuple(notes))


def _unknown(path: Path) -> str:
    if not path.exists() and not path.suffix:
        return f"no such file or folder{_nearest(path)}"
    hint = did_you_mean(path.suffix.lower(), _READERS)
    also = "" if "mean" in hint else ", folders of save_to_disk, parallel text as news.en,news.ro"
    return f"unknown kind of file '{path.suffix}'{hint}{also}"


def _nearest(path: Path) -> str:
    near = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, near)
    return hint if "mean" in hint else ""  # not the list of a whole folder


_Read = tuple[pd.DataFrame, list[str]]
_Reader = Callable[[str, bytes, bool], _Read]


def _delimited(separator: str) -> _Reader:
    def read(path: str, content: bytes, header: bool) -> _Read:
        text, notes = decoded(path, content)
        table = _parse_delimited(path, text, separator, header)
        if header:
            table.columns = table.columns.str.strip()
            _refuse_other_separator(path, table, separator)
        else:
            table.columns = pd.Index([str(number + 1) for number in range(table.shape[1])])
        return table.fillna(""), notes

    return read


def _refuse_other_separator(path: str, table: pd.DataFrame, separator: str) -> None:
    first = table.columns[0]
    other = next((mark for mark in ",;\t|" if mark != separator and mark in first), None)
    if len(table.columns) == 1 and other is not None:
        raise DataError(
            f"{path}: one column, '{first}': are they separated by {other!r}? "
            "(commas in .csv, tabs in .tsv)"
        )


def _parse_delimited(path: str, text: str, separator: str, header: bool) -> pd.DataFrame:
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
                header=0 if header else None,
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


def _json(path: str, content: bytes, header: bool) -> _Read:
    text, notes = decoded(path, content)
    table, more = parse_json(path, text)
    return table, notes + more


def _json_lines(path: str, content: bytes, header: bool) -> _Read:
    text, notes = decoded(path, content)
    table, more = parse_json_lines(path, text)
    return table, notes + more


def _parquet(path: str, content: bytes, header: bool) -> _Read:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return frame_of(path, pq.ParquetFile(io.BytesIO(content)).read()), []
    except (pa.ArrowException, OSError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable parquet file ({why})") from error


_READERS: dict[str, _Reader] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
