"""A folder that is there with everything in it, or not at all, wherever its maker is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from peftsearch.atomic import sync_folder
from peftsearch.errors import MissingError, UsageError

__all__ = ["made_whole"]


@contextlib.contextmanager
def made_whole(root: Path) -> Iterator[Path]:
    """A folder beside `root`, which becomes `root` at the end, or is removed on an error.

    What a killed maker of `root` left goes; UsageError if someone else has made it meanwhile.
    """
    partial = root.with_name(f".{root.name}.partial-{secrets.token_hex(4)}")
    try:
        _remove_abandoned(root)
        partial.mkdir(parents=True)
        try:
            with _opened(partial) as descriptor:
                with contextlib.suppress(OSError):  # without locks nobody removes it
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield partial
                os.rename(partial, root)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        if os.path.lexists(root):
            raise UsageError(f"{root} was created by someone else in this moment") from error
        raise MissingError(
            f"{root}: the study cannot be created ({error.strerror}); nothing was written"
        ) from error
    sync_folder(root.parent)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """To lock it: the kernel frees it when its owner ends, however it does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_abandoned(root: Path) -> None:
    for partial in root.parent.glob(f".{root.name}.partial-*"):
        with contextlib.suppress(OSError), _opened(partial) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused if its maker lives
            shutil.rmtree(partial, ignore_errors=True)
