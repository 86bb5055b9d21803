"""Running workers to completion: shows progress, then writes the study's derived files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftsearch.errors import Interrupted, NothingFeasible, PeftsearchError
from peftsearch.wording import agree, counted

if TYPE_CHECKING:
    from peftsearch.api.progress.display import Display
    from peftsearch.records.folder import StudyFolder
    from peftsearch.records.records import StudyRecord
    from peftsearch.workers.events import Event
    from peftsearch.workers.limits import Limits, WorkerSettings

__all__ = ["Outcome", "Run", "watch", "watch_local"]

Run = Callable[["StudyFolder", "Limits", int, "WorkerSettings", Callable[[Any], None]], bool]
"""Runs a number of workers on this machine; returns whether the user interrupted them."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a search: its study, and why it ended."""

    folder: StudyFolder
    record: StudyRecord
    interrupted: bool
    fatal: PeftsearchError | None
    """The error that ended a worker, if one did."""

    @property
    def found(self) -> bool:
        """True if a configuration reached full length."""
        return any(result.state == "full" for result in self.record.results)

    def report_or_raise(self, notify: Callable[[str], None], resume_command: str) -> None:
        """Report interrupted trials; raise an error if the search failed, was interrupted or found
        nothing. `resume_command` is the command or Python call that resumes the study.
        """
        waiting = self.record.waiting
        if self.fatal is not None:
            raise self.fatal
        if waiting and not self.interrupted and self.found:
            saved = counted(waiting, "trial")
            notify(f"{saved} interrupted and saved; continue with: {resume_command}")
        if self.interrupted:
            raise Interrupted(f"interrupted; everything is saved. Continue with: {resume_command}")
        if not self.found:
            ended = counted(len(self.record.results), "trial")
            raise NothingFeasible(
                f"no configuration reached full length ({ended} ended, {waiting} interrupted); "
                f"continue with: {resume_command}"
            )


def watch_local(
    run: Run,
    folder: StudyFolder,
    limits: Limits,
    workers: int | None,
    settings: WorkerSettings,
    display: Display,
) -> Outcome:
    """`run` workers on this machine (None: a default number), and `watch` them."""
    from peftsearch.backbone.device import default_workers_here

    device = settings.device or folder.read_info().device
    count = workers or default_workers_here(device)
    idle = len(os.sched_getaffinity(0)) - count * settings.threads
    if idle > 0 and device == "cpu":
        display.line(
            f"{counted(idle, 'more core')} {agree(idle, 'is', 'are')} idle: --workers "
            f"{count + idle} tries more configurations"
        )

    def run_here(on_event: Callable[[Event | None], None]) -> bool:
        return run(folder, limits, count, settings, on_event)

    with _inherited_by_workers(settings.threads):
        return watch(run_here, folder, limits, count, display)


def watch(
    run: Callable[[Callable[[Any], None]], bool],
    folder: StudyFolder,
    limits: Limits,
    workers: int,
    display: Display,
) -> Outcome:
    """`run` the workers and show their progress; then write the study's derived files."""
    from peftsearch.api.progress.progress import Progress
    from peftsearch.records.derive import write_derived
    from peftsearch.report.html import write_report
    from peftsearch.study.read_study import read_study
    from peftsearch.study.storage.database.copies import update_folder

    with Progress(folder, limits, workers, display) as progress:
        try:
            interrupted = run(progress.handle)
        except KeyboardInterrupt:  # before there was a worker to stop
            interrupted = True
    update_folder(folder, display.line)
    record = read_study(folder)
    write_derived(folder, record)
    write_report(record, folder.report_path, folder.read_environment(), folder)
    return Outcome(folder, record, interrupted, progress.fatal)


@contextlib.contextmanager
def _inherited_by_workers(threads: int) -> Iterator[None]:
    """Set environment variables that workers started in this context inherit; those set by the user
    are kept. Libraries read them on import, so they have no effect on this process.
    """
    wanted = {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    added = wanted.keys() - os.environ.keys()
    os.environ.update({name: wanted[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
