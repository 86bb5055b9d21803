"""Printing: results to stdout, all else to stderr, nothing a terminal could take as orders."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

__all__ = [
    "clean",
    "complain",
    "print_json",
    "print_table",
    "print_text",
    "say",
    "shortened",
    "style",
    "tell",
]

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNSAFE_IN_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of characters, which no encoding has."""
_FIRST, _LAST = 1000, 400
"""Characters shown of a sentence that quotes something endless."""


def clean(text: str) -> str:
    """On one line, with control characters as visible escapes (`\\x1b`): names and labels come from
    the user's files.
    """
    return _UNSAFE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def style(text: str, code: str) -> str:
    """Coloured on a terminal, unless NO_COLOR is set."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def tell(line: str = "") -> None:
    """One line of a result, to stdout."""
    print(clean(line))


def print_text(text: str) -> None:
    """A text of several lines, to stdout."""
    print(_UNSAFE_IN_TEXT.sub(_escaped, text))


def say(line: str) -> None:
    """Progress and notes, to stderr."""
    print(shortened(clean(line)), file=sys.stderr, flush=True)


def complain(sentence: str) -> None:
    """An error, to stderr."""
    line = shortened(clean(" ".join(sentence.split())))
    print(f"{style('error:', '1;31')} {line}", file=sys.stderr, flush=True)


def shortened(line: str) -> str:
    """What it quotes may be a whole file in one line."""
    cut = len(line) > _FIRST + _LAST
    return f"{line[:_FIRST]} … {line[-_LAST:]}" if cut else line


def print_json(kind: str, data: dict[str, Any]) -> None:
    """One JSON document on stdout; `schema` names its kind and version."""
    text = json.dumps({"schema": f"peftsearch.{kind}/1", **data}, indent=2, ensure_ascii=False)
    print(_UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on stdout; columns of numbers are set right."""
    cells = [[shortened(clean(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(header))]
    for row in cells:
        line = (
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        )
        print("  ".join(line).rstrip())


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+#]?[0-9][0-9.,e+-]*( ?%)?( ?± ?[0-9.]+)?|–|", cell) is not None
