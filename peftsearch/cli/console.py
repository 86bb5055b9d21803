"""Printing: results to stdout, all else to stderr, nothing a terminal could take as orders."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["clean", "complain", "print_json", "print_table", "say", "style"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Without control characters: names and labels come from the user's files."""
    return _CONTROL.sub("?", text)


def style(text: str, code: str) -> str:
    """Coloured on a terminal, unless NO_COLOR is set."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def say(line: str) -> None:
    """Progress and notes, to stderr."""
    print(clean(line), file=sys.stderr, flush=True)


def complain(sentence: str) -> None:
    """An error, to stderr."""
    line = clean(" ".join(sentence.split()))
    print(f"{style('error:', '1;31')} {line}", file=sys.stderr, flush=True)


def print_json(kind: str, data: dict[str, Any]) -> None:
    """One JSON document on stdout; `schema` names its kind and version."""
    print(json.dumps({"schema": f"peftsearch.{kind}/1", **data}, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on stdout; columns of numbers are set right."""
    cells = [[clean(cell) for cell in row] for row in (header, *rows)]
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
