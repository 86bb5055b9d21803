"""Local worker processes: started, watched, replaced when one dies, stopped.

A worker that is killed (out of memory, say) loses nothing that finished: its trial is queued again.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing as mp
import os
import queue
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

from peftsearch.errors import PeftsearchError
from peftsearch.search.events import Event, WorkerStopped
from peftsearch.search.worker import Limits, Worker

__all__ = ["LocalWorkers"]

_PR_SET_PDEATHSIG = 1
_MAX_DEATHS = 3
_POLL_S = 0.2


class LocalWorkers:
    """`count` processes on one study, each with `threads` threads."""

    def __init__(self, root: str, count: int, limits: Limits, threads: int) -> None:
        self.root, self.limits, self.threads = root, limits, threads
        self.began = time.time()
        self._context = mp.get_context("spawn")
        self._events: mp.Queue[Event] = self._context.Queue()
        self._stop = self._context.Event()
        self._processes: dict[int, BaseProcess] = {}
        self._deaths = 0
        self._count = count

    def stop(self) -> None:
        """Ask all to checkpoint what they do and end."""
        self._stop.set()

    def kill(self) -> None:
        for process in self._processes.values():
            process.kill()

    def run(self, on_death: Callable[[int], None]) -> Iterator[Event | None]:
        """Every event as it comes, None every now and then; ends with the last worker.

        `on_death(worker)` is called when one died without a word, before another takes its place.
        """
        for worker in range(self._count):
            self._start(worker)
        try:
            while self._processes:
                yield self._next_event()
                yield from self._reap(on_death)
        finally:
            self.kill()

    def _start(self, worker: int) -> None:
        arguments = (self.root, worker, self.limits, self.began, self.threads)
        process = self._context.Process(
            target=_child, args=(*arguments, self._events, self._stop, os.getpid()), daemon=True
        )
        process.start()
        self._processes[worker] = process

    def _next_event(self) -> Event | None:
        try:
            return self._events.get(timeout=_POLL_S)
        except queue.Empty:
            return None

    def _reap(self, on_death: Callable[[int], None]) -> Iterator[Event]:
        for worker, process in list(self._processes.items()):
            if process.is_alive():
                continue
            process.join()
            del self._processes[worker]
            with contextlib.suppress(queue.Empty):
                while True:
                    yield self._events.get(timeout=_POLL_S)
            if process.exitcode == 0:
                continue
            self._deaths += 1
            on_death(worker)
            yield WorkerStopped(worker, f"worker {worker} died ({_how(process.exitcode)})", 1)
            if self._deaths < _MAX_DEATHS and not self._stop.is_set():
                self._start(worker)


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = ": out of memory?" if name == "SIGKILL" else ""
        return f"{name}{hint}"
    return f"exit code {exit_code}"


def _child(
    root: str,
    worker: int,
    limits: Limits,
    began: float,
    threads: int,
    events: mp.Queue[Event],
    stop: Any,
    parent: int,
) -> None:
    """The body of a worker process. Interrupts are the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    _die_with(parent)
    try:
        Worker(root, worker, limits, began, threads, events.put, stop.is_set).run()
        events.put(WorkerStopped(worker))
    except PeftsearchError as error:
        events.put(WorkerStopped(worker, str(error), error.exit_code))
        stop.set()


def _die_with(parent: int) -> None:
    """Never outlive a killed parent: two searches must not work on one study."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
