"""Formatting lines for a terminal: escaping control characters, shortening and wrapping.

Commands, paths and words stay whole. What is piped is not wrapped: another program reads it, or a
person opens it at any width.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from typing import TextIO

__all__ = ["clean", "escaped", "fitted_columns", "shortened", "width_of", "wrapped"]

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, and halves of characters, which no encoding has."""
_FIRST, _LAST = 1000, 400
"""Characters shown of a sentence that quotes something endless."""

_COMMAND = re.compile(
    r"peftsearch (search|worker|status|frontier|report|export|train|predict|ls|show|check|doctor|"
    r"launch|--)[^;,)\n]*"
)
"""Matches a quoted command, which is kept on one line so that it can be copied."""
_KEPT = "\0"
_NARROWEST = 12
"""Minimum width of a column, in characters."""


def clean(text: str) -> str:
    """On one line, with control characters as visible escapes (`\\x1b`): names and labels come from
    the user's files.
    """
    return _UNSAFE.sub(escaped, text)


def escaped(found: re.Match[str]) -> str:
    """A character as `\\x1b`, for `re.sub`."""
    return found[0].encode("unicode_escape").decode()


def shortened(line: str) -> str:
    """The line, without its middle if it is very long: errors may quote a whole file."""
    cut = len(line) > _FIRST + _LAST
    return f"{line[:_FIRST]} … {line[-_LAST:]}" if cut else line


def width_of(stream: TextIO) -> int | None:
    """Width of the stream's terminal in columns; None if it is not a terminal."""
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns


def wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """One line as lines of at most `width` characters, those after the first indented. Text without
    spaces may be longer.
    """
    if width is None or len(text) <= width:
        return [text]
    kept = _COMMAND.sub(
        lambda found: found[0].rstrip().replace(" ", _KEPT) + _space(found[0]), text
    )
    begin = len(kept) - len(kept.lstrip(" "))
    lines, line = [], kept[:begin]
    for word in kept[begin:].split(" "):
        if line.strip(" ") and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = indent + word
        else:
            line = f"{line} {word}" if line.strip(" ") else line + word
    return [one.replace(_KEPT, " ") for one in (*lines, line)]


def _space(text: str) -> str:
    return " " * (len(text) - len(text.rstrip()))


def fitted_columns(
    rows: Sequence[Sequence[str]], may_wrap: Sequence[bool], gap: int, width: int
) -> list[int] | None:
    """Widths of a table's columns: as wide as their cells, but where the whole is wider than
    `width` the widest that may wrap are narrowed, down to their longest words. None if that is not
    enough.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [
        max(_NARROWEST, *(len(word) for cell in column for word in cell.split(" ")))
        for column in columns
    ]
    while sum(widths) + gap * (len(widths) - 1) > width:
        able = [i for i in range(len(widths)) if may_wrap[i] and widths[i] > least[i]]
        if not able:
            return None
        widths[max(able, key=lambda i: widths[i])] -= 1
    return widths
