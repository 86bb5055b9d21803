"""Temporaries: files and folders that are made beside their place and renamed when complete.

The maker holds a lock (`flock`) on its temporary, which the kernel frees when the maker ends,
however it ends. So the next maker can tell what a killed one left from what is still being made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["new_file", "new_folder", "remove_abandoned_files", "remove_abandoned_folders"]

_FILE = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")


def new_file(path: Path) -> tuple[Path, int]:
    """A new file beside `path`, and its descriptor: open for writing, and locked."""

    def make() -> tuple[Path, int]:
        beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        return beside, os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    return _locked(make)


def new_folder(root: Path) -> tuple[Path, int]:
    """A new folder beside `root`, made with its parents, and a descriptor that locks it."""

    def make() -> tuple[Path, int] | None:
        partial = root.with_name(f".{root.name}.partial-{secrets.token_hex(4)}")
        partial.mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):  # removed as abandoned before it was opened
            return partial, os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
        return None

    return _locked(make)


def _locked(make: Callable[[], tuple[Path, int] | None]) -> tuple[Path, int]:
    """A locked temporary; retries if another process removes it as abandoned first."""
    while True:
        made = make()
        if made is None:
            continue
        path, descriptor = made
        with contextlib.suppress(OSError):  # without locks nothing is ever taken for abandoned
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path, descriptor
        os.close(descriptor)


def remove_abandoned_files(folder: Path) -> None:
    """Remove temporary files in `folder` whose writers were killed before they renamed them."""
    with contextlib.suppress(OSError):
        for name in filter(_FILE.fullmatch, os.listdir(folder)):
            _remove_if_abandoned(folder / name, os.unlink)


def remove_abandoned_folders(root: Path) -> None:
    """Remove temporary folders beside `root` whose makers were killed before they renamed them."""
    for partial in root.parent.glob(f".{root.name}.partial-*"):
        _remove_if_abandoned(partial, lambda path: shutil.rmtree(path, ignore_errors=True))


def _remove_if_abandoned(path: Path, remove: Callable[[Path], object]) -> None:
    with contextlib.suppress(OSError):  # its maker lives and holds the lock, or it is gone by now
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)
        finally:
            os.close(descriptor)
