"""Resolving user-supplied paths so that they are valid from any working folder."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["absolute", "existing_files", "is_same_file"]


def absolute(path_text: str) -> str:
    """The absolute path: `~` is expanded, `..` resolved unless it follows a link, links are kept.
    Empty text and an unknown `~user` are returned unchanged; opening them reports the error.
    """
    if not path_text.strip():
        return path_text
    try:
        whole = str(Path(path_text).expanduser().absolute())
    except (RuntimeError, OSError):
        return path_text
    # `link/..` is the parent of what the link leads to: there, and where nothing can be looked up,
    # the path stays as it is.
    plain = os.path.normpath(whole)
    return plain if plain != whole and is_same_file(plain, whole) else whole


def existing_files(path_text: str, folder: Path) -> list[str]:
    """Existing files that a path in a file of `folder` may mean: beside that file, in the working
    folder, or both (one, if they are the same).
    """
    path = Path(absolute(path_text) if path_text.startswith("~") else path_text)
    try:
        found = [str(at / path) for at in (folder.absolute(), Path.cwd()) if (at / path).exists()]
    except (OSError, ValueError):  # too long, a NUL
        return []
    return found[:1] if len(found) > 1 and is_same_file(*found) else found


def is_same_file(one: str, other: str) -> bool:
    """True if two paths are equal, or lead to one file through links or `..`."""
    if one == other:
        return True
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False
