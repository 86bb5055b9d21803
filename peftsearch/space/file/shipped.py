"""Shipped spaces: the space files that come with the package."""

from __future__ import annotations

from pathlib import Path

from peftsearch.errors import MissingError

__all__ = ["shipped_spaces"]

_PACKAGE = Path(__file__).resolve().parents[2]
_CANDIDATES = (_PACKAGE / "_spaces", _PACKAGE.parent / "spaces")
"""The folder of space files: first that of a wheel, then that of a checkout."""


def shipped_spaces() -> dict[str, Path]:
    """Name → file of every shipped space, sorted; MissingError if the installation has none."""
    for folder in _CANDIDATES:
        spaces = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        if spaces:
            return spaces
    raise MissingError(
        f"the shipped spaces are missing from '{_CANDIDATES[0]}': reinstall peftsearch, "
        "or give a space file by its path"
    )
