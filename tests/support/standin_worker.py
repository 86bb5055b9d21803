"""The real worker on a study whose trials are not trained: it asks, is judged, and tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.policy.decisions import Pause, Stop
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from peftsearch.study.settings import space_of
from peftsearch.study.study import Assignment, Study
from peftsearch.workers.cohort_scheduler import Ended
from peftsearch.workers.events import Event
from peftsearch.workers.limits import Limits, WorkerSettings
from peftsearch.workers.worker import Worker
from support.standin import finish, metric_of, rung_value

__all__ = ["StandInWorker", "early_metric_of", "search_without_training"]


def early_metric_of(assignment: Assignment) -> float:
    """The metric at the first of the two rungs."""
    return 0.5 + 0.8 * (metric_of(assignment) - 0.5)


@dataclass
class _Trainer:
    """In place of the cohort: each trial reaches its rungs at once, and is judged at each."""

    worker: Worker
    has_room: bool = True
    in_flight: tuple[()] = ()
    is_idle: bool = True

    def begin(self, assignment: Assignment) -> Ended:
        return assignment, self._result(assignment)

    def _result(self, assignment: Assignment) -> TrialResult | None:
        study = self.worker.study
        for rung, metric in enumerate((early_metric_of(assignment), metric_of(assignment))):
            value = rung_value(rung, metric)
            study.record_rung(assignment.number, value)
            verdict = self.worker._judge(assignment, value)
            if isinstance(verdict, Pause):
                return None
            if isinstance(verdict, Stop):
                return finish(assignment, study.shapes, "stopped")
        return finish(assignment, study.shapes, "full")


class StandInWorker(Worker):
    def _prepare(self, settings: WorkerSettings) -> None:
        shapes = load_shapes(self.info.model)
        space = space_of(self.folder, self.info)
        self.study = Study(self.folder, self.info, space, shapes, self.worker, self.name)
        self.scheduler = _Trainer(self)  # type: ignore[assignment]


def search_without_training(
    folder: StudyFolder, limits: Limits, emit: Callable[[Event], None]
) -> StandInWorker:
    """One worker's search from its beginning to its end; the worker, whose study is closed."""
    arguments = (str(folder.root), 0, limits, time.monotonic, WorkerSettings())
    worker = StandInWorker(*arguments, emit, lambda: False)
    worker.run()
    return worker
