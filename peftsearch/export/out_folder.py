"""Preparing an export's folder: overwrites an earlier export, refuses any other content."""

from __future__ import annotations

from pathlib import Path

from peftsearch.backbone.loading.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from peftsearch.errors import MissingError, UsageError
from peftsearch.export.package import ADAPTER, CONFIGURATION

__all__ = [
    *("CARD", "PEFT_ADAPTER", "PEFT_CONFIGURATION", "PEFT_HEAD"),
    *("clear", "refuse_taken", "refuse_taken_out"),
]

CARD = "README.md"
PEFT_ADAPTER = ADAPTER_WEIGHTS
PEFT_CONFIGURATION = ADAPTER_CONFIG
PEFT_HEAD = "head.safetensors"
_ADAPTERS = {ADAPTER, PEFT_ADAPTER}  # written first
_OURS = {*_ADAPTERS, CARD, CONFIGURATION, PEFT_CONFIGURATION, PEFT_HEAD}


def clear(out: Path) -> None:
    """Create the folder `out`, and remove the files of an earlier export, its description first,
    so that a mixture of two exports cannot be loaded.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in (CONFIGURATION, PEFT_CONFIGURATION, *sorted(_OURS)):
        (out / name).unlink(missing_ok=True)


def refuse_taken_out(out: Path, to: str) -> None:
    """UsageError if `out` cannot be written to; a recipe may overwrite a file."""
    if to != "recipe":
        refuse_taken(out)
    elif out.is_dir():
        raise UsageError(f"'{out}' is a folder: choose another place")


def refuse_taken(out: Path) -> None:
    """UsageError if `out` is a file, or a folder with anything in it that no export has written.

    Hidden files do not count: a folder under version control may be exported to again.
    """
    if out.is_file():
        raise UsageError(f"'{out}' is a file: choose another place")
    if not out.is_dir():
        return
    try:
        found = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    except OSError as error:
        raise MissingError(f"'{out}' cannot be read ({error.strerror})") from error
    others = sorted(found - _OURS if found & _ADAPTERS else found)
    if others:
        raise UsageError(
            f"'{out}' is a folder with other files in it ({others[0]}): name a new one, or that of "
            "an earlier export"
        )
