"""Atomic file writes: a kill or a full disk, at any instant, leaves the old content or the new.

A file is replaced whole (`write_atomic`) or grows by whole lines (`append_line`). Readers of the
second kind stop at the last newline: what follows it was cut off, and the next line overwrites it.
Temporary files of killed writers are removed by the next write into their folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from peftsearch.disk.temporary import new_file, remove_abandoned_files
from peftsearch.errors import MissingError

__all__ = ["append_line", "append_whole", "end_of_last_line", "sync_folder", "write_atomic"]

_CHUNK = 4096


def write_atomic(path: Path, content: bytes | str | Iterable[memoryview]) -> None:
    """Replace the file at `path` with `content` (text as UTF-8; or pieces), or change nothing.

    The content is written beside `path`, synced, and renamed over it. MissingError if the disk is
    full or the folder cannot be written to.
    """
    encoded = content.encode() if isinstance(content, str) else content
    pieces = [memoryview(encoded)] if isinstance(encoded, bytes) else encoded
    with _named(path, "write"):
        if path.is_dir():  # `.` and `/` have no name to write beside
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        remove_abandoned_files(path.parent)
        beside, descriptor = new_file(path)
        try:
            for piece in pieces:
                _write_all(descriptor, piece)
            os.fsync(descriptor)
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append one line, on disk or not at all; a cut-off last line is removed first."""
    with _named(path, "append to"):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.ftruncate(descriptor, end_of_last_line(descriptor, os.fstat(descriptor).st_size))
            append_whole(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)


def append_whole(descriptor: int, content: bytes) -> None:
    """Append `content` to an open file and sync it; undo that if it fails."""
    before = os.fstat(descriptor).st_size
    try:
        _write_all(descriptor, content)
        os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, before)
        raise


def end_of_last_line(descriptor: int, end: int) -> int:
    """The offset after the last newline before `end`; what follows is an incomplete line."""
    while end > 0:
        start = max(0, end - _CHUNK)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def sync_folder(folder: Path) -> None:
    """Make new names in `folder` survive a power cut, where its file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write everything; `os.write` may take less, on a nearly full disk and above 2 GiB."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextlib.contextmanager
def _named(path: Path, action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MissingError(
            f"{path}: cannot {action} it ({error.strerror or error}); "
            "nothing was changed: free disk space or fix permissions, then try again"
        ) from error
