"""Changes of a study's files as the kernel tells them (inotify): to kill right at a write."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["FileEvents"]

_MODIFY, _MOVED_TO, _CREATE, _DELETE, _CLOEXEC = 0x2, 0x80, 0x100, 0x200, 0o2000000
_EVENT = struct.Struct("iIII")
_IGNORED = (".lock", "log.txt")


class FileEvents:
    """Writes, renames and removals in a study's folder and in those of its trials. Linux only."""

    def __init__(self, study: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | _CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        self._folders: dict[int, Path] = {}
        self._trials = study / "trials"
        for folder in (study, self._trials, *self._trials.glob("*")):
            self._watch(folder)

    def __enter__(self) -> FileEvents:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        os.close(self._descriptor)

    def wait(self, count: int, limit_s: float) -> bool:
        """Until so many changes were seen; False if the time ran out."""
        deadline = time.monotonic() + limit_s
        while count > 0:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._descriptor], [], [], left_s)[0]:
                return False
            for folder, name in self._read():
                if folder == self._trials:
                    self._watch(folder / name)
                count -= not name.endswith(_IGNORED)
        return True

    def _watch(self, folder: Path) -> None:
        mask = _MODIFY | _MOVED_TO | _CREATE | _DELETE
        watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask)
        if watch >= 0:
            self._folders[watch] = folder

    def _read(self) -> Iterator[tuple[Path, str]]:
        content, at = os.read(self._descriptor, 65536), 0
        while at < len(content):
            watch, _, _, length = _EVENT.unpack_from(content, at)
            at += _EVENT.size + length
            name = content[at - length : at].rstrip(b"\0")
            if watch in self._folders:
                yield self._folders[watch], os.fsdecode(name)
