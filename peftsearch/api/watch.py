"""Watching workers to the end: their progress is shown, the study's derived files are written."""

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
    from peftsearch.search.events import Event
    from peftsearch.search.limits import Limits, Means

__all__ = ["Outcome", "Run", "watch", "watch_local"]

Run = Callable[["StudyFolder", "Limits", int, "Means", Callable[[Any], None]], bool]
"""Runs so many workers of this machine, and returns whether the user interrupted them."""


@dataclass(frozen=True)
class Outcome:
    """A search that ended: its study, and why it ended."""

    folder: StudyFolder
    record: StudyRecord
    interrupted: bool
    fatal: PeftsearchError | None
    """The error that ended a worker, if one did."""

    @property
    def found(self) -> bool:
        """True if a configuration reached full length."""
        return any(result.state == "full" for result in self.record.results)

    def settle(self, say: Callable[[str], None], go_on: str) -> None:
        """Say what was cut off and saved. Raises the error of a search that failed, was interrupted
        or found nothing; `go_on` is the command or call that resumes it.
        """
        waiting = self.record.waiting
        if self.fatal is not None:
            raise self.fatal
        if waiting and not self.interrupted and self.found:
            say(f"{counted(waiting, 'trial')} interrupted and saved; continue with: {go_on}")
        if self.interrupted:
            raise Interrupted(f"interrupted; everything is saved. Continue with: {go_on}")
        if not self.found:
            ended = counted(len(self.record.results), "trial")
            raise NothingFeasible(
                f"no configuration reached full length ({ended} ended, {waiting} interrupted); "
                f"continue with: {go_on}"
            )


def watch_local(
    run: Run,
    folder: StudyFolder,
    limits: Limits,
    workers: int | None,
    means: Means,
    display: Display,
) -> Outcome:
    """`run` workers of this machine (None: as many as make sense), and `watch` them."""
    from peftsearch.backbone.device import default_workers_here

    device = means.device or folder.read_info().device
    count = workers or default_workers_here(device)
    idle = len(os.sched_getaffinity(0)) - count * means.threads
    if idle > 0 and device == "cpu":
        display.line(
            f"{counted(idle, 'more core')} {agree(idle, 'is', 'are')} idle: --workers "
            f"{count + idle} tries more configurations"
        )

    def run_here(hear: Callable[[Event | None], None]) -> bool:
        return run(folder, limits, count, means, hear)

    with _inherited_by_workers(means.threads):
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
    from peftsearch.study.storage.database.copies import bring_home

    with Progress(folder, limits, workers, display) as progress:
        try:
            interrupted = run(progress.hear)
        except KeyboardInterrupt:  # before there was a worker to stop
            interrupted = True
    bring_home(folder, display.line)
    record = read_study(folder)
    write_derived(folder, record)
    write_report(record, folder.report_path, folder.read_environment(), folder)
    return Outcome(folder, record, interrupted, progress.fatal)


@contextlib.contextmanager
def _inherited_by_workers(threads: int) -> Iterator[None]:
    """Environment variables that worker processes started meanwhile inherit; the user's own stand.
    Libraries read them when they are imported, so that they do nothing in this process.
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
