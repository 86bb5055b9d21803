"""Decoding text files as UTF-8; invalid sequences are replaced and counted."""

from __future__ import annotations

import codecs

from peftsearch.errors import DataError

__all__ = ["decoded", "lines_of"]

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""Byte order marks of spreadsheets' "Unicode text" (UTF-32's other mark begins with UTF-16's)."""


def decoded(path: str, content: bytes) -> tuple[str, list[str]]:
    """The text without its byte order mark, and a note on replaced sequences."""
    if content.startswith(_WIDE):
        raise DataError(f"{path}: UTF-16 or UTF-32 text; save it as UTF-8")
    text = content.decode("utf-8-sig", errors="replace")
    replaced = text.count("�") - content.count("�".encode())
    note = f"{path}: {replaced:,} invalid UTF-8 sequences replaced"
    return text, [note] if replaced > 0 else []


def lines_of(path: str, content: bytes) -> tuple[list[str], list[str]]:
    """The lines, with empty ones, and a note on replaced sequences; DataError if it is no text."""
    text, notes = decoded(path, content)
    if "\0" in text:
        raise DataError(f"{path}: not plain text (compressed?); one sentence a line is needed")
    # Not str.splitlines: U+2028 and its like may stand inside a sentence.
    lines = text.removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines], notes
