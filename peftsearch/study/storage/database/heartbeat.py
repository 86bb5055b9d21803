"""Heartbeats in a database: which workers are alive, without comparing clocks of two machines.

A worker increments a counter. Others consider it dead once they have read the same count several
times, at intervals of their own clocks. If it resumes, it is ignored: others have its trials.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.study.storage.attributes import ALIVE
from peftsearch.study.storage.database.connection import close_storage
from peftsearch.study.storage.retry import is_outage

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["CountingHeartbeat", "HeartbeatTiming"]


@dataclass(frozen=True)
class HeartbeatTiming:
    """Increments every `interval_s` seconds; dead after `missed` reads without a change."""

    interval_s: float = 10.0
    missed: int = 6


@dataclass
class _Seen:
    count: int | None
    looked: float
    missed: int = 0


class CountingHeartbeat:
    """A heartbeat in which each worker increments a counter in its own study attribute."""

    def __init__(self, storage: BaseStorage, study_id: int, timing: HeartbeatTiming) -> None:
        self._storage, self._study_id, self.timing = storage, study_id, timing
        self._name: str | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: dict[str, _Seen] = {}
        self._read_at, self._attributes = float("-inf"), dict[str, object]()

    @property
    def poll_s(self) -> float:
        return self.timing.interval_s

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
        """Whether the count changes. Reads at most once in `interval_s`; failed reads are
        ignored.
        """
        if name == self._name:
            return True
        now, count = time.monotonic(), ALIVE.at(name).of(self._counts())
        if not isinstance(count, int):
            return False  # never joined, or left
        seen = self._seen.get(name)
        if seen is None or seen.count != count:
            self._seen[name] = _Seen(count, now)
        elif now - seen.looked >= self.timing.interval_s:
            seen.looked, seen.missed = now, seen.missed + 1
        return self._seen[name].missed < self.timing.missed

    def _counts(self) -> dict[str, object]:
        now = time.monotonic()
        if now - self._read_at >= min(1.0, self.timing.interval_s / 2):
            self._attributes = self._storage.get_study_user_attrs(self._study_id)
            self._read_at = now
        return self._attributes

    def _count(self) -> None:
        count = 1
        while not self._ended.wait(self.timing.interval_s):
            count += 1
            with contextlib.suppress(Exception):  # one error must not end the heartbeat
                self._write(count)

    def _write(self, count: int | None) -> None:
        """Write the count; in an outage it is skipped until the next one."""
        key = ALIVE.at(self._name or "").key
        try:
            self._storage.set_study_user_attr(self._study_id, key, count)
        except Exception as error:
            if not is_outage(error):
                raise
            with contextlib.suppress(Exception):
                close_storage(self._storage)
