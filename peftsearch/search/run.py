"""A search from outside: one owner of the study, its workers, and what they report."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from peftsearch.backbone.load import load_shapes
from peftsearch.search.events import Event, TrialEnded
from peftsearch.search.folder import StudyFolder
from peftsearch.search.launch import LocalWorkers
from peftsearch.search.study import Study
from peftsearch.search.study_space import space_of
from peftsearch.search.worker import Limits, Means

__all__ = ["run_search"]


def run_search(
    folder: StudyFolder,
    limits: Limits,
    workers: int,
    means: Means,
    hear: Callable[[Event | None], None],
) -> bool:
    """Search until the limits; every event is given to `hear` (None every now and then).

    Holds the study's lock throughout, so that no two searches work on one study. Returns whether
    the user interrupted it: all state is saved then. A second interrupt kills.
    """
    lock = folder.search_lock()
    lock.acquire(timeout_s=5.0)
    try:
        for result in _open(folder).recover():
            hear(TrialEnded(-1, result))
        local = LocalWorkers(str(folder.root), workers, limits, means)
        with _interruptible(local) as interrupted:
            for event in local.run(lambda worker: _settle(folder, worker, hear)):
                hear(event)
            return bool(interrupted)
    finally:
        lock.release()


def _open(folder: StudyFolder) -> Study:
    info = folder.read_info()
    return Study(folder, info, space_of(folder, info), load_shapes(info.model))


def _settle(folder: StudyFolder, worker: int, hear: Callable[[Event | None], None]) -> None:
    """Queue what a dead worker was doing; its own trials only, the others' go on."""
    for result in _open(folder).recover(worker):
        hear(TrialEnded(worker, result))


@contextlib.contextmanager
def _interruptible(local: LocalWorkers) -> Iterator[list[int]]:
    """Ctrl-C or SIGTERM asks the workers to save and end; a second one kills them."""
    caught: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) > 1:
            local.kill()
        local.stop()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
