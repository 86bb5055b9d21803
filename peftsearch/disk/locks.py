"""File locks between processes, which cannot outlive their owner.

The kernel holds them (`flock`) and frees them when the owner ends, however it ends. So there is no
stale lock to detect and break; the owner written into the file is for people to read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from peftsearch.errors import MissingError, UsageError

__all__ = ["FileLock", "Owner", "lock_descriptor"]

_PROBE_S = 0.05
"""Longer than anyone holds a lock just to see whether it is free (`FileLock.owner`)."""

_HELD: dict[tuple[int, int], tuple[FileLock, int]] = {}
"""(device, inode) of each lock file held by this process → the lock and the thread that took it."""


@dataclass(frozen=True)
class Owner:
    """The holder of a lock. `since`: UTC, ISO 8601."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host} since {self.since}"


class FileLock:
    """An exclusive lock on a small file, between threads and processes of one machine.

    `in_use` begins the error for those who come too late: `study 'x' is being searched`.
    Taking it twice in one thread is a RuntimeError, never a deadlock.
    """

    def __init__(self, path: Path, in_use: str | None = None) -> None:
        self.path = path.absolute()
        self._in_use = in_use or f"{path} is locked"
        self._descriptor: int | None = None

    def acquire(self, timeout_s: float | None = None) -> None:
        """Wait for the lock, for ever or `timeout_s`; then a UsageError names its owner."""
        if not self._take(timeout_s):
            by = self.owner() or "another process"
            raise UsageError(f"{self._in_use} by {by}; wait for it or stop it")

    def try_acquire(self) -> bool:
        """Take the lock if it is free, without waiting (up to 50 ms)."""
        with contextlib.suppress(_TakenByThisThread):
            return self._take(_PROBE_S)
        return False

    def release(self) -> None:
        """Release the lock, from any thread; nothing happens if it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            _HELD.pop(_inode(os.fstat(descriptor)), None)
            os.close(descriptor)

    def is_held(self) -> bool:
        """Whether anyone holds the lock now, without waiting."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:
            return False
        try:
            return not lock_descriptor(descriptor, self.path, exclusive=False, timeout_s=0)
        finally:
            os.close(descriptor)

    def owner(self) -> Owner | None:
        """The present holder; None if the lock is free or its holder left no readable name."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:
            return None
        try:
            if lock_descriptor(descriptor, self.path, exclusive=False, timeout_s=0):
                return None
            return Owner(**json.loads(os.pread(descriptor, 4096, 0)))
        except (ValueError, TypeError):
            return None
        finally:
            os.close(descriptor)

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _take(self, timeout_s: float | None) -> bool:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        taken: bool | None = None
        while taken is None:
            descriptor = self._open()
            try:
                taken = self._take_open(descriptor, deadline)
            finally:
                if not taken:
                    os.close(descriptor)
        return taken

    def _take_open(self, descriptor: int, deadline: float | None) -> bool | None:
        """Whether the lock was taken; None if its file was deleted while we waited."""
        self._refuse_twice(descriptor)
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not lock_descriptor(descriptor, self.path, exclusive=True, timeout_s=left_s):
            return False
        if not self._is_current(descriptor):
            return None
        self._write_owner(descriptor)
        _HELD[_inode(os.fstat(descriptor))] = (self, threading.get_ident())
        self._descriptor = descriptor
        return True

    def _open(self) -> int:
        try:
            # Never through a link: the owner's name must not be written over another file.
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            why = "it is a link: remove it" if error.errno == errno.ELOOP else error.strerror
            raise MissingError(f"{self.path}: cannot be locked ({why})") from error

    def _refuse_twice(self, descriptor: int) -> None:
        holder = _HELD.get(_inode(os.fstat(descriptor)))
        if holder is not None and holder[1] == threading.get_ident():
            raise _TakenByThisThread(f"{self.path}: this thread already holds this lock")

    def _is_current(self, descriptor: int) -> bool:
        try:
            return _inode(os.stat(self.path)) == _inode(os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _write_owner(self, descriptor: int) -> None:
        owner = Owner(os.getpid(), socket.gethostname(), _now())
        record = json.dumps(asdict(owner)).encode() + b"\n"
        with contextlib.suppress(OSError):  # a full disk: the lock is held without the name
            os.pwrite(descriptor, record, 0)
            os.ftruncate(descriptor, len(record))


class _TakenByThisThread(RuntimeError):
    pass


def lock_descriptor(
    descriptor: int, path: Path, *, exclusive: bool, timeout_s: float | None
) -> bool:
    """Lock an open file with `flock`, waiting for ever or `timeout_s`; False if time ran out.

    Closing the descriptor frees the lock. MissingError where the file system has no locks.
    """
    mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    deadline, pause_s = time.monotonic() + (timeout_s or 0.0), 0.001
    while True:
        try:
            fcntl.flock(descriptor, mode if timeout_s is None else mode | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        except OSError as error:
            raise MissingError(
                f"{path}: its file system has no file locks ({error.strerror}); "
                "keep studies on a local disk"
            ) from error
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _forget_locks() -> None:
    """Close a forked child's copies of its parent's lock files, which would keep them locked."""
    for lock, _ in list(_HELD.values()):
        if lock._descriptor is not None:
            os.close(lock._descriptor)
            lock._descriptor = None
    _HELD.clear()


os.register_at_fork(after_in_child=_forget_locks)
