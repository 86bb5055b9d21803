"""Creating a folder atomically: it appears with everything in it, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from peftsearch.disk.atomic import sync_folder
from peftsearch.errors import MissingError, UsageError

__all__ = ["made_whole"]


@contextlib.contextmanager
def made_whole(root: Path) -> Iterator[Path]:
    """Yield a folder beside `root` that becomes `root` at the end, or is removed on an error.

    Remains of killed makers of `root` are removed. UsageError if someone else made it meanwhile.
    """
    try:
        _remove_abandoned(root)
        partial, descriptor = _begun(root)
        try:
            yield partial
            os.rename(partial, root)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        if os.path.lexists(root):
            raise UsageError(f"{root} was created by someone else in this moment") from error
        raise MissingError(
            f"{root}: the study cannot be created ({error.strerror}); nothing was written"
        ) from error
    sync_folder(root.parent)


def _begun(root: Path) -> tuple[Path, int]:
    """A new folder, and a descriptor that locks it until its maker ends, however it ends."""
    while True:
        partial = root.with_name(f".{root.name}.partial-{secrets.token_hex(4)}")
        partial.mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):  # removed as abandoned before it was locked
            descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # without locks nobody removes it
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if partial.exists():
                return partial, descriptor
            os.close(descriptor)


def _remove_abandoned(root: Path) -> None:
    for partial in root.parent.glob(f".{root.name}.partial-*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused if its maker lives
                shutil.rmtree(partial, ignore_errors=True)
            finally:
                os.close(descriptor)
