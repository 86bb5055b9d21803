"""Paths as a user writes them, made to mean the same from every working folder."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["absolute", "is_same", "places"]


def absolute(path_text: str) -> str:
    """The whole path, `~` expanded and symlinks left as they are. An empty text, and one that names
    the home of nobody, stay what they are: whoever opens them says what is wrong.
    """
    if not path_text.strip():
        return path_text
    try:
        return str(Path(path_text).expanduser().absolute())
    except (RuntimeError, OSError):
        return path_text


def places(path_text: str, folder: Path) -> list[str]:
    """Where a path in a file of `folder` leads to something: beside the file, in the working
    folder, or both (one, if they are the same).
    """
    path = Path(absolute(path_text) if path_text.startswith("~") else path_text)
    try:
        found = [str(at / path) for at in (folder.absolute(), Path.cwd()) if (at / path).exists()]
    except (OSError, ValueError):  # too long, a NUL
        return []
    return found[:1] if len(found) > 1 and is_same(*found) else found


def is_same(one: str, other: str) -> bool:
    """Whether two paths are equal, or lead to one file by way of links or `..`."""
    if one == other:
        return True
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False
