"""The command-line entry with a search's worker in this process: starting one takes seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any
from unittest import mock

import typer

from peftsearch.cli import main
from peftsearch.errors import PeftsearchError
from peftsearch.records.folder import StudyFolder
from peftsearch.training.loop import TrainingRun
from peftsearch.workers import run as searching
from peftsearch.workers.events import Event, TrialEnded, WorkerStopped
from peftsearch.workers.limits import Limits, WorkerSettings
from peftsearch.workers.worker import Worker

__all__ = ["run", "run_briefly"]

MOST_TRIALS = 6
PATIENCE_S = 1.0


def run(arguments: list[str], stop: Callable[[], bool]) -> int:
    """`peftsearch ARGUMENTS`; returns the exit code. `stop()` turning true ends a search as Ctrl-C
    does.
    """
    with (
        mock.patch.object(main, "app", _command()),
        mock.patch.object(searching, "run_search", partial(_search_here, stop)),
        mock.patch.object(searching, "run_workers", partial(_search_here, stop)),
    ):
        return main.run(arguments)


@cache
def _command() -> Any:
    """The whole command line, which is otherwise built anew for every call."""
    return typer.main.get_command(main.app)


def run_briefly(arguments: list[str]) -> int:
    """The same, with what trains for long interrupted: a file may well ask for a year of it."""
    deadline = time.monotonic() + PATIENCE_S
    train_to = TrainingRun.train_to

    def interrupted(self: TrainingRun, step: int, stop: Callable[[], bool] | None = None) -> bool:
        return train_to(self, step, stop or (lambda: _interrupt_after(deadline)))

    with mock.patch.object(TrainingRun, "train_to", interrupted):
        return run(arguments, lambda: time.monotonic() > deadline)


def _interrupt_after(deadline: float) -> bool:
    if time.monotonic() > deadline:
        raise KeyboardInterrupt
    return False


def _search_here(
    stop: Callable[[], bool],
    folder: StudyFolder,
    limits: Limits,
    workers: int,
    settings: WorkerSettings,
    on_event: Callable[[Event | None], None],
) -> bool:
    """`run_search` without processes, and of a few trials at most."""
    lock = folder.search_lock()
    lock.acquire(timeout_s=5.0)
    limits = Limits(min(limits.trials or MOST_TRIALS, MOST_TRIALS), limits.seconds)
    try:
        for result in searching._open(folder).recover():
            on_event(TrialEnded(-1, result))
        try:
            Worker(str(folder.root), 0, limits, time.monotonic, settings, on_event, stop).run()
            on_event(WorkerStopped(0))
        except PeftsearchError as error:  # as a worker process hands it to its parent
            on_event(WorkerStopped(0, str(error), error.exit_code))
        return False
    finally:
        lock.release()
