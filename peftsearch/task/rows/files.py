"""Local data files → rows: csv, tsv, txt, json, jsonl and parquet (compressed, too), folders of
`save_to_disk`, and parallel text. A file that cannot be read is a DataError of one sentence.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import pandas as pd

from peftsearch.errors import DataError, did_you_mean
from peftsearch.task.rows.arrow_classes import class_names_in_schema
from peftsearch.task.rows.compressed import COMPRESSED, name_inside, unpacked
from peftsearch.task.rows.delimited import parse_delimited
from peftsearch.task.rows.folders import read_folder
from peftsearch.task.rows.json_rows import parse_json, parse_json_lines
from peftsearch.task.rows.nested import frame_of
from peftsearch.task.rows.parallel import parallel_paths, read_parallel
from peftsearch.task.rows.plain_text import decoded, lines_of
from peftsearch.task.rows.rows import Rows

__all__ = ["SEPARATORS", "nearest_file", "read_rows"]

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Separators of columns by a table's extension."""


def read_rows(path_text: str, header: bool = True, separator: str | None = None) -> Rows:
    """Read a file by its extension, a folder, or two files of parallel text (`news.en,news.ro`);
    DataError if it cannot be read, or if `header` or `separator` does not apply to it.

    Without `header` the columns of csv and tsv are named "1", "2", …. With a `separator` any file
    but json, jsonl and parquet is a table of text.
    """
    path, pair = Path(path_text), None
    try:
        pair = parallel_paths(path_text)
        if pair is not None:
            _refuse_unused(path_text, header, separator)
            return read_parallel(pair, _TABLES)
        path = path.expanduser()
        if path.is_dir():
            _refuse_unused(path_text, header, separator)
            return read_folder(path_text)
        if path.suffix.lower() not in COMPRESSED:
            _reader(path_text, path.name, header, separator)  # refuse before reading
        content = path.read_bytes()
    except FileNotFoundError as error:
        if pair is None:
            raise DataError(f"{path_text}: no such file{nearest_file(path)}") from error
        missing = Path(str(error.filename))
        near = nearest_file(missing) or " (a comma joins the names of two)"
        raise DataError(f"{missing}: no such file{near}") from error
    except (OSError, RuntimeError, ValueError) as error:  # too long, an unknown ~user, a NUL
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path_text[:100]}: cannot be read ({why})") from error
    read = _reader(path_text, name_inside(path_text, content), header, separator)
    content = unpacked(path_text, content)
    if not content.strip():
        raise DataError(f"{path_text}: the file is empty")
    found = read(path_text, content, header)
    if found.table.empty:
        raise DataError(f"{path_text}: the file has no rows")
    return Rows(path.name, found.table, tuple(found.notes), found.classes)


@dataclass(frozen=True)
class _Read:
    table: pd.DataFrame
    notes: list[str]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_Reader = Callable[[str, bytes, bool], _Read]


def _reader(path_text: str, name: str, header: bool, separator: str | None) -> _Reader:
    suffix = PurePath(name).suffix.lower()
    if suffix in _STRUCTURED:
        _refuse_unused(path_text, header, separator)
    if separator is not None and (suffix or Path(path_text).expanduser().exists()):
        return _delimited(separator)
    if suffix in _READERS:
        return _READERS[suffix]
    raise DataError(f"{path_text}: {_unknown(Path(path_text).expanduser(), suffix)}")


def _refuse_unused(path_text: str, header: bool, separator: str | None) -> None:
    """DataError for options that apply to text tables only, if the data are not one."""
    flag = "--separator" if separator is not None else "--no-header" if not header else None
    if flag is not None:
        raise DataError(f"{path_text}: {flag} is for csv, tsv and txt: leave it out")


def _unknown(path: Path, suffix: str) -> str:
    if not path.exists() and not path.suffix:
        return f"no such file or folder{nearest_file(path)}"
    hint = did_you_mean(suffix, _READERS)
    if "mean" in hint:
        return f"unknown kind of file '{suffix}'{hint}"
    return (
        f"unknown kind of file '{suffix}'{hint}, these compressed ({', '.join(COMPRESSED)}), "
        "folders of save_to_disk, parallel text as news.en,news.ro, and any other table of text "
        "with --separator (space: the first word of a line is a column)"
    )


def nearest_file(path: Path) -> str:
    """A hint at a file beside `path` whose name is similar; empty without one."""
    near = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, near)
    return hint if "mean" in hint else ""  # not the list of a whole folder


def _delimited(separator: str) -> _Reader:
    def read(path: str, content: bytes, header: bool) -> _Read:
        text, notes = decoded(path, content)
        return _Read(parse_delimited(path, text, separator, header), notes)

    return read


def _lines(path: str, content: bytes, header: bool) -> _Read:
    lines, notes = lines_of(path, content)
    return _Read(pd.DataFrame({"text" if header else "1": lines}, dtype=object), notes)


def _json(path: str, content: bytes, header: bool) -> _Read:
    text, notes = decoded(path, content)
    table, more = parse_json(path, text)
    return _Read(table, notes + more)


def _json_lines(path: str, content: bytes, header: bool) -> _Read:
    text, notes = decoded(path, content)
    table, more = parse_json_lines(path, text)
    return _Read(table, notes + more)


def _parquet(path: str, content: bytes, header: bool) -> _Read:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(content)).read()
    except (pa.ArrowException, OSError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable parquet file ({why})") from error
    return _Read(frame_of(path, table), [], class_names_in_schema(table.schema))


_STRUCTURED: dict[str, _Reader] = {".json": _json, ".jsonl": _json_lines, ".parquet": _parquet}
_TABLES = {**{suffix: _delimited(mark) for suffix, mark in SEPARATORS.items()}, **_STRUCTURED}
_READERS: dict[str, _Reader] = {**_TABLES, ".txt": _lines}
