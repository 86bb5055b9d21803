"""Delimited text: a row a line, values separated by commas, tabs or another character."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Iterator
from typing import Literal

import pandas as pd

from peftsearch.errors import DataError
from peftsearch.task.rows.nested import refuse_twice

__all__ = ["parse_delimited"]


def parse_delimited(path: str, text: str, separator: str, header: bool) -> pd.DataFrame:
    """The table, with texts as cells and a row for every line after the header. Blank lines are
    rows, too, so that row n belongs to line n. A space separates only the first word of a line from
    the rest, as in files of TREC and fastText.

    Without `header` the columns are named "1", "2", ….
    """
    blank = sum(1 for _ in _leading_blank(text))
    if separator == " ":
        table = _first_words(path, text, header, blank)
    else:
        if header:
            refuse_twice(path, _names(path, text, separator, blank))
        table = _parsed(path, text, separator, header, blank)
    if header:
        table.columns = table.columns.str.strip()
        _refuse_other_separator(path, table, separator)
        return table
    table.columns = pd.Index([str(number + 1) for number in range(table.shape[1])])
    above = pd.DataFrame("", index=range(blank), columns=table.columns, dtype=object)
    return pd.concat([above, table], ignore_index=True) if blank else table


def _leading_blank(text: str) -> Iterator[str]:
    for line in io.StringIO(text):
        if line.strip(" \r\n"):
            return
        yield line


def _names(path: str, text: str, separator: str, blank: int) -> Iterable[str]:
    """The header's names as written: pandas would rename duplicates."""
    first = _parsed(path, text, separator, False, blank, rows=1)
    names = [str(name).strip() for name in first.iloc[0]]
    return (name for name in names if name)


def _parsed(
    path: str, text: str, separator: str, header: bool, skipped: int, rows: int | None = None
) -> pd.DataFrame:
    # Tab-separated files (GLUE's) do not quote.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
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
                skip_blank_lines=False,
                skiprows=skipped,
                nrows=rows,
            ).fillna("")
    except pd.errors.ParserWarning as error:
        raise DataError(
            f"{path}: rows have more fields than the header names{_hint(separator)}"
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        what = " ".join(str(error).replace("Error tokenizing data. C error: ", "").split())
        raise DataError(f"{path}: not a readable table ({what}){_hint(separator)}") from error


def _hint(separator: str) -> str:
    if separator in ",\t":
        return ""
    return (
        ": a text that contains the separator must be quoted; if only the first word of a line is "
        "a column, give --separator space"
    )


def _first_words(path: str, text: str, header: bool, blank: int) -> pd.DataFrame:
    # Not str.splitlines: U+2028 and its like may stand inside a sentence.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")][blank:]
    rows = [line.lstrip(" ").partition(" ")[::2] for line in lines]
    names, rows = (rows[0], rows[1:]) if header else (("1", "2"), rows)
    if not all(names):
        raise DataError(f"{path}: no space in its first line, '{lines[0][:40]}'")
    refuse_twice(path, names)
    return pd.DataFrame(rows, columns=pd.Index(names), dtype=object)


def _refuse_other_separator(path: str, table: pd.DataFrame, separator: str) -> None:
    first = table.columns[0]
    other = next((mark for mark in ",;\t|" if mark != separator and mark in first), None)
    if len(table.columns) == 1 and other is not None:
        shown = "tab" if other == "\t" else f"'{other}'"
        raise DataError(
            f"{path}: one column, '{first}': are they separated by {other!r}? "
            f"(commas in .csv, tabs in .tsv; --separator {shown} says so)"
        )
