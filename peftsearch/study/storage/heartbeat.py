"""Which workers of a study are alive, without comparing the clocks of two machines.

On one machine a worker holds a file lock as long as it lives, and the kernel frees it. In a
database it counts: whoever sees a count stand still several times, at intervals of its own, takes
the worker for dead. What such a worker says should it wake up is not heard: its trials have another
by then.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from peftsearch.disk.locks import FileLock
from peftsearch.errors import MissingError
from peftsearch.study.storage.connection import close_storage
from peftsearch.study.storage.retry import is_outage

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["CountingHeartbeat", "Heartbeat", "LockHeartbeat", "Pulse"]


class Heartbeat(Protocol):
    """`name` is a worker's, unique to the study. Looking more often than `look_s` shows no more."""

    @property
    def look_s(self) -> float: ...

    def join(self, name: str) -> None:
        """From now on until `leave`, or the end of this process, the worker is alive."""

    def leave(self) -> None: ...

    def is_alive(self, name: str) -> bool: ...


class LockHeartbeat:
    """Workers of one machine: each holds the lock on a file in `folder`."""

    look_s = 1.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: FileLock | None = None
        self._name: str | None = None

    def join(self, name: str) -> None:
        self.folder.mkdir(exist_ok=True)
        for path in list(self.folder.iterdir()):
            with contextlib.suppress(MissingError):  # another user's, in a study that is shared
                self.is_alive(path.name)  # files of dead workers go
        lock = FileLock(self.folder / name, f"worker {name} is alive")
        lock.acquire(timeout_s=5.0)
        self._lock, self._name = lock, name

    def leave(self) -> None:
        if self._lock is not None:
            self._lock.path.unlink(missing_ok=True)
            self._lock.release()
        self._lock = self._name = None

    def is_alive(self, name: str) -> bool:
        path = self.folder / name
        if name == self._name:
            return True
        lock = FileLock(path)
        if lock.is_held():
            return True
        if path.exists() and lock.try_acquire():  # nobody may join under this name meanwhile
            path.unlink(missing_ok=True)
            lock.release()
        return False


@dataclass(frozen=True)
class Pulse:
    """A count every `every_s` seconds; dead after standing still `missed` looks in a row."""

    every_s: float = 10.0
    missed: int = 6


@dataclass
class _Seen:
    count: int | None
    looked: float
    missed: int = 0


class CountingHeartbeat:
    """Workers of many machines: each counts in a study attribute of its own."""

    def __init__(self, storage: BaseStorage, study_id: int, pulse: Pulse) -> None:
        self._storage, self._study_id, self.pulse = storage, study_id, pulse
        self._name: str | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: dict[str, _Seen] = {}
        self._read_at, self._attributes = float("-inf"), dict[str, object]()

    @property
    def look_s(self) -> float:
        return self.pulse.every_s

    def join(self, name: str) -> None:
        self._name = name
        self._write(1)
        self._ended.clear()
        self._thread = threading.Thread(target=self._count, daemon=True, name="heartbeat")
        self._thread.start()

    def leave(self) -> None:
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        self._thread = None
        self._write(None)
        self._name = None

    def is_alive(self, name: str) -> bool:
        """Looks once every `every_s` seconds at most; only looks that were answered count."""
        if name == self._name:
            return True
        now, count = time.monotonic(), self._counts().get(_key(name))
        if not isinstance(count, int):
            return False  # never joined, or left
        seen = self._seen.get(name)
        if seen is None or seen.count != count:
            self._seen[name] = _Seen(count, now)
        elif now - seen.looked >= self.pulse.every_s:
            seen.looked, seen.missed = now, seen.missed + 1
        return self._seen[name].missed < self.pulse.missed

    def _counts(self) -> dict[str, object]:
        now = time.monotonic()
        if now - self._read_at >= min(1.0, self.pulse.every_s / 2):
            self._attributes = self._storage.get_study_user_attrs(self._study_id)
            self._read_at = now
        return self._attributes

    def _count(self) -> None:
        count = 1
        while not self._ended.wait(self.pulse.every_s):
            count += 1
            with contextlib.suppress(Exception):  # a heart that stopped for one error is a dead one
                self._write(count)

    def _write(self, count: int | None) -> None:
        """A count that does not get through is missing; the next one may."""
        try:
            self._storage.set_study_user_attr(self._study_id, _key(self._name or ""), count)
        except Exception as error:
            if not is_outage(error):
                raise
            with contextlib.suppress(Exception):
                close_storage(self._storage)


def _key(name: str) -> str:
    return f"alive:{name}"
