"""Local worker processes: started, monitored, replaced when one dies, stopped.

A worker that is killed, as when memory runs out, loses no finished trial; its unfinished one is
queued again. Workers share no lock with one another or with the parent: a process killed while it
held one would block all others for ever. So each reports through its own pipe, and the request
to stop is one byte of shared memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from peftsearch.errors import PeftsearchError
from peftsearch.processes import PARENT_SIGNALS, WorkerContext, signals_blocked
from peftsearch.workers.events import Event, WorkerReady, WorkerStopped
from peftsearch.workers.limits import Limits, WorkerSettings

__all__ = ["LocalWorkers"]

_PR_SET_PDEATHSIG = 1
_MAX_DEATHS = 3
_POLL_S = 0.2

StartClock = Callable[[], float]
"""Returns the search's start in `time.monotonic()` seconds; the first call starts it."""
WorkerMain = Callable[
    [str, int, Limits, StartClock, WorkerSettings, Callable[[Event], None], Callable[[], bool]],
    None,
]
"""The main function of a worker process: (root, worker, limits, start_clock, settings, emit, asked
to stop?).
"""


def run_worker(
    root: str,
    worker: int,
    limits: Limits,
    start_clock: StartClock,
    settings: WorkerSettings,
    emit: Callable[[Event], None],
    stop: Callable[[], bool],
) -> None:
    """The main function of a search's worker processes."""
    # Importing torch takes seconds; only now has it been arranged that it dies with its parent.
    from peftsearch.workers.worker import Worker

    Worker(root, worker, limits, start_clock, settings, emit, stop).run()


class LocalWorkers:
    """`count` processes on one study, each with the same settings."""

    def __init__(
        self,
        root: str,
        count: int,
        limits: Limits,
        settings: WorkerSettings,
        main: WorkerMain = run_worker,
    ) -> None:
        self.root, self.limits, self.settings, self.main = root, limits, settings, main
        self._context = WorkerContext()
        self._began = self._context.RawValue(ctypes.c_double, 0.0)
        """The search's start in `time.monotonic()` seconds, shared by all processes of the machine;
        0 until the first worker has loaded model and data.
        """
        self._stop = self._context.RawValue(ctypes.c_bool, False)
        self._killed = False
        self._loading: set[int] = set()
        self._running: dict[int, tuple[BaseProcess, Connection]] = {}
        self._deaths = 0
        self._count = count

    def stop(self) -> None:
        """Ask all workers to checkpoint their trials and end; those still loading end at once."""
        self._stop.value = True
        for worker in self._loading & self._running.keys():
            self._running[worker][0].terminate()
        self._loading.clear()

    def kill(self) -> None:
        """Kill all workers (SIGKILL); checkpoints written before are kept."""
        self._killed = True
        for process, _ in self._running.values():
            process.kill()

    @property
    def killed(self) -> bool:
        """True if `kill` ended the workers; their deaths then do not count against trials."""
        return self._killed

    def run(self, on_death: Callable[[int], None]) -> Iterator[Event | None]:
        """Yields every event, and None every now and then, until the last worker has ended.

        `on_death(worker)` is called when one exited with an error, before another takes its place.
        """
        for worker in range(self._count):
            self._start(worker)
        try:
            while self._running:
                yield from self._received()
                yield from self._reap(on_death)
        finally:
            self.kill()

    def _start(self, worker: int) -> None:
        receiving, sending = self._context.Pipe(duplex=False)
        arguments = (self.root, worker, self.limits, self._began, self.settings)
        process = self._context.Process(
            target=_child,
            args=(self.main, *arguments, sending, self._stop, os.getpid()),
            daemon=True,
        )
        with signals_blocked():
            process.start()
        # Else the parent, holding the other end, would never see the pipe end with the worker.
        sending.close()
        self._loading.add(worker)
        self._running[worker] = (process, receiving)

    def _received(self) -> Iterator[Event | None]:
        """One event of every worker that sent any; None if none did within `_POLL_S`."""
        ready = wait([receiving for _, receiving in self._running.values()], _POLL_S)
        if not ready:
            yield None
        for _, receiving in list(self._running.values()):
            if receiving in ready:
                with contextlib.suppress(EOFError, OSError):
                    event = receiving.recv()
                    if isinstance(event, WorkerReady):
                        self._loading.discard(event.worker)
                    yield event

    def _reap(self, on_death: Callable[[int], None]) -> Iterator[Event]:
        for worker, (process, receiving) in list(self._running.items()):
            if process.is_alive():
                continue
            process.join()
            del self._running[worker]
            yield from _remaining_events(receiving)
            if process.exitcode == 0:
                continue
            self._deaths += 1
            on_death(worker)
            # Not an error: killed by the user, or terminated by `stop` while it was loading.
            if self._killed or (self._stop.value and process.exitcode == -signal.SIGTERM):
                yield WorkerStopped(worker)
                continue
            yield WorkerStopped(
                worker, f"worker {worker} died ({_exit_reason(process.exitcode)})", 1
            )
            if self._deaths < _MAX_DEATHS and not self._stop.value:
                self._start(worker)


def _remaining_events(receiving: Connection) -> Iterator[Event]:
    """Unread events of a worker that has ended; the last may be incomplete."""
    with receiving, contextlib.suppress(EOFError, OSError):
        while receiving.poll():
            yield receiving.recv()


def _exit_reason(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = ": out of memory?" if name == "SIGKILL" else ""
        return f"{name}{hint}"
    return f"exit code {exit_code}"


def _child(
    main: WorkerMain,
    root: str,
    worker: int,
    limits: Limits,
    began: Any,
    settings: WorkerSettings,
    events: Connection,
    stop: Any,
    parent: int,
) -> None:
    """The main function of a worker process. Ctrl-C is left to the parent to handle."""
    has_loaded = False

    def stop_all(*_: object) -> None:
        stop.value = True
        if not has_loaded:  # it holds nothing that could be lost
            os._exit(0)

    def start_clock() -> float:
        nonlocal has_loaded
        has_loaded = True
        began.value = began.value or time.monotonic()
        return float(began.value)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop_all)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENT_SIGNALS)
    _die_with_parent(parent)
    if stop.value:  # asked before it could hear
        return
    try:
        main(root, worker, limits, start_clock, settings, events.send, lambda: bool(stop.value))
        events.send(WorkerStopped(worker))
    except PeftsearchError as error:
        events.send(WorkerStopped(worker, str(error), error.exit_code))
        stop_all()


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process with its parent; otherwise it would keep working on a study
    that the user may search again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call
        os._exit(1)
