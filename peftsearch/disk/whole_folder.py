"""A folder that is there with everything in it, or not at all, wherever its maker is killed."""

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
    """A folder beside `root`, which becomes `root` at the end, or is removed on an error.

    What a killed maker of `root` left goes; UsageError if someone else has made it meanwhile.
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
    """A new folder, and its lock, which the kernel frees when its maker ends, however it does."""
    while True:
        partial = root.with_name(f".{root.name}.partial-{secrets.token_hex(4)}")
        partial.mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):  # taken for an abandoned one, before the lock
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
