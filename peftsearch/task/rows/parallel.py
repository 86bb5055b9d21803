"""Parallel text: two plain text files, paired line by line."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from peftsearch.errors import DataError
from peftsearch.task.rows.compressed import suffix_of, unpacked
from peftsearch.task.rows.plain_text import lines_of
from peftsearch.task.rows.rows import Rows
from peftsearch.wording import counted

__all__ = ["parallel_paths", "read_parallel"]


def parallel_paths(path_text: str) -> tuple[str, str] | None:
    """The two files in `news.en,news.ro`; with several commas, split at one between existing files.
    None without a comma between two names, or if a file has the whole text as its name.
    """
    if "," not in path_text or Path(path_text).expanduser().exists():
        return None
    commas = [i for i, letter in enumerate(path_text) if letter == ","]
    pairs = [(path_text[:i].strip(), path_text[i + 1 :].strip()) for i in commas]
    named = [pair for pair in pairs if all(pair)]
    there = (pair for pair in named if all(Path(one).expanduser().is_file() for one in pair))
    return next(there, named[0] if named else None)


def read_parallel(paths: tuple[str, str], tables: Collection[str]) -> Rows:
    """Columns `text` and `target` with a row for each line, also empty ones. `tables` are
    extensions of files that are not plain text.
    """
    (texts, some), (targets, more) = (_lines(path, tables) for path in paths)
    if len(texts) != len(targets):
        raise DataError(
            f"{paths[0]} has {counted(len(texts), 'line')} and {paths[1]} {len(targets):,}: "
            "parallel text has one sentence a line, and as many lines in both files"
        )
    name = ",".join(Path(path).name for path in paths)
    table = pd.DataFrame({"text": texts, "target": targets}, dtype=object)
    return Rows(name, table, (*some, *more))


def _lines(path_text: str, tables: Collection[str]) -> tuple[list[str], list[str]]:
    path = Path(path_text).expanduser()
    suffix = suffix_of(path.name)
    if suffix in tables:
        raise DataError(
            f"{path_text}: parallel text is two plain text files, and '{suffix}' is a table; "
            "give it alone, with --text and --label"
        )
    if path.is_dir():
        raise DataError(f"{path_text}: a folder; parallel text is two plain text files")
    content = unpacked(path_text, path.read_bytes())
    if not content.strip():
        raise DataError(f"{path_text}: the file is empty")
    return lines_of(path_text, content)
