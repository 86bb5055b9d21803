"""Stand-ins for a search in worker processes, which import them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from peftsearch.workers.events import Event, TrialBegan, WorkerReady
from peftsearch.workers.limits import Limits, WorkerSettings

Emit = Callable[[Event], None]
Stop = Callable[[], bool]
StartClock = Callable[[], float]


def chatter_and_one_death(
    root: str,
    worker: int,
    limits: Limits,
    start_clock: StartClock,
    settings: WorkerSettings,
    emit: Emit,
    stop: Stop,
) -> None:
    """Worker 1 reports and is killed, once; the others talk without a pause until told to stop."""
    start_clock()
    emit(WorkerReady(worker))
    died = Path(root) / "died"
    if worker == 1 and not died.exists():
        died.touch()
        emit(TrialBegan(1, 7, "its last words"))
        os.kill(os.getpid(), signal.SIGKILL)
    while not stop():
        emit(TrialBegan(worker, 0, "chatter"))
        time.sleep(0.01)


def always_dies(
    root: str,
    worker: int,
    limits: Limits,
    start_clock: StartClock,
    settings: WorkerSettings,
    emit: Emit,
    stop: Stop,
) -> None:
    os._exit(3)


def loads_and_begins(
    root: str,
    worker: int,
    limits: Limits,
    start_clock: StartClock,
    settings: WorkerSettings,
    emit: Emit,
    stop: Stop,
) -> None:
    """Loads for a while, says when the search began, and when that was in its own view."""
    time.sleep(0.5 + 1.5 * worker)
    ready = time.monotonic()
    emit(TrialBegan(worker, 0, f"{start_clock()} {ready}"))


def loads_for_ever(
    root: str,
    worker: int,
    limits: Limits,
    start_clock: StartClock,
    settings: WorkerSettings,
    emit: Emit,
    stop: Stop,
) -> None:
    """Worker 1 loads as long as it lives; the others train until told to stop."""
    if worker == 1:
        emit(TrialBegan(worker, 0, "loads"))
        time.sleep(600)
    start_clock()
    emit(WorkerReady(worker))
    while not stop():
        time.sleep(0.01)
