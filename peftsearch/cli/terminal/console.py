"""Printing: results to stdout, all else to stderr; control characters are escaped."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from peftsearch.lines import clean, escaped, fitted_columns, shortened, width_of, wrapped

__all__ = [
    "clean",
    "print_error",
    "print_json",
    "print_line",
    "print_note",
    "print_table",
    "print_text",
    "shortened",
    "style",
]

_UNSAFE_IN_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of characters, which no encoding has."""
_GAP = "  "


def style(text: str, code: str) -> str:
    """Coloured on a terminal, unless NO_COLOR is set."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def print_line(line: str = "") -> None:
    """Print one line of a result to stdout."""
    for part in wrapped(clean(line), width_of(sys.stdout)):
        print(part)


def print_text(text: str) -> None:
    """Print text of several lines to stdout."""
    print(_UNSAFE_IN_TEXT.sub(escaped, text))


def print_note(line: str) -> None:
    """Print progress or a note to stderr."""
    lines = wrapped(shortened(clean(line)), width_of(sys.stderr))
    print("\n".join(lines), file=sys.stderr, flush=True)


def print_error(sentence: str) -> None:
    """Print an error to stderr."""
    line = shortened(clean(" ".join(sentence.split())))
    text = "\n".join(wrapped(f"error: {line}", width_of(sys.stderr)))
    print(style("error:", "1;31") + text.removeprefix("error:"), file=sys.stderr, flush=True)


def print_json(kind: str, data: dict[str, Any]) -> None:
    """Print one JSON document to stdout; its key `schema` has `kind` and a version."""
    text = json.dumps({"schema": f"peftsearch.{kind}/1", **data}, indent=2, ensure_ascii=False)
    print(_UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on stdout; columns of numbers are set right. On a terminal that is too narrow
    cells of text take several lines, and where that is not enough each row is a paragraph.
    """
    cells = [[shortened(clean(cell)) for cell in row] for row in (header, *rows)]
    width = width_of(sys.stdout) or sys.maxsize
    right = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(header))]
    may_wrap = [not is_right for is_right in right]
    widths = fitted_columns(cells, may_wrap, len(_GAP), width)
    if widths is None:
        _print_paragraphs(cells, width)
        return
    for row in cells:
        parts = [
            wrapped(cell, width, "  ") if wraps else [cell]
            for cell, width, wraps in zip(row, widths, may_wrap, strict=True)
        ]
        for line in zip_longest(*parts, fillvalue=""):
            padded = (
                cell.rjust(width) if is_right else cell.ljust(width)
                for cell, width, is_right in zip(line, widths, right, strict=True)
            )
            print(_GAP.join(padded).rstrip())


def _print_paragraphs(cells: Sequence[Sequence[str]], width: int) -> None:
    header, *rows = cells
    for row in rows:
        named = [f"{n} {c}".strip() for n, c in zip(header[1:], row[1:], strict=True) if c]
        print("\n".join(wrapped(f"{row[0] or '  and'}: {'; '.join(named)}", width, _GAP)))


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+#]?[0-9][0-9.,e+-]*( ?%)?( ?± ?[0-9.]+)?|–|", cell) is not None
