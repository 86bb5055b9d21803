"""Running a search: starts its workers and forwards their events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.records.folder import StudyFolder
from peftsearch.study.settings import space_of
from peftsearch.study.storage.database.copies import register_in_database
from peftsearch.study.study import Study
from peftsearch.workers.events import Event, TrialEnded
from peftsearch.workers.interrupt import interruptible, with_stop_requests
from peftsearch.workers.launchers.local import LocalWorkers
from peftsearch.workers.limits import Limits, WorkerSettings, unique_name_prefix, worker_name

__all__ = ["run_search", "run_workers"]


def run_search(
    folder: StudyFolder,
    limits: Limits,
    workers: int,
    settings: WorkerSettings,
    on_event: Callable[[Event | None], None],
) -> bool:
    """Search until a limit is reached; `on_event` is called with every event, and with None
    regularly.

    Holds the study's lock throughout, so that no two searches work on one folder; workers that join
    it (`run_workers`) do not. Returns whether the user interrupted it: all state is saved then. A
    second interrupt kills.
    """
    lock = folder.search_lock()
    lock.acquire(timeout_s=5.0)
    try:
        register_in_database(folder)
        with closing(_open(folder)) as study:
            study.set_target(limits.trials)
        return run_workers(folder, limits, workers, settings, on_event)
    finally:
        lock.release()


def run_workers(
    folder: StudyFolder,
    limits: Limits,
    workers: int,
    settings: WorkerSettings,
    on_event: Callable[[Event | None], None],
) -> bool:
    """Run workers that join a study which other workers may be searching."""
    name_prefix = unique_name_prefix()
    with closing(_open(folder)) as study:
        limits = replace(limits, trials=limits.trials or study.target())
        for result in study.recover():
            on_event(TrialEnded(-1, result))

        def recover_trials(worker: int) -> None:
            """Requeue the trials of a dead worker."""
            for result in study.recover(worker_name(name_prefix, worker), counts=not local.killed):
                on_event(TrialEnded(worker, result))

        local = LocalWorkers(
            str(folder.root), workers, limits, replace(settings, name_prefix=name_prefix)
        )
        with interruptible(local) as interrupted:
            # If `on_event` raises, workers end at once: a notebook keeps the traceback, and with it
            # the generator that would end them.
            with closing(with_stop_requests(local.run(recover_trials), interrupted)) as events:
                for event in events:
                    on_event(event)
            return bool(interrupted)


def _open(folder: StudyFolder) -> Study:
    info = folder.read_info()
    return Study(folder, info, space_of(folder, info), load_shapes(info.model))
