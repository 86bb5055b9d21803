"""A worker: ask, evaluate, tell, until the limits are reached or someone says stop."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from peftsearch.errors import PeftsearchError
from peftsearch.search.events import (
    Event,
    TrialBegan,
    TrialEnded,
    TrialEvaluated,
    WorkerReady,
)
from peftsearch.search.folder import StudyFolder
from peftsearch.search.records import RungValue, StudyInfo, TrialResult
from peftsearch.search.scheduler import Decision, RungPoint, decide
from peftsearch.search.study import Assignment, Study
from peftsearch.search.study_space import budget_of, space_of, task_of, tokenizers_of
from peftsearch.search.trial import TrialRunner
from peftsearch.search.workbench import Workbench, set_threads
from peftsearch.training.levers import Levers

__all__ = ["Limits", "Worker"]

EXHAUSTED = 200
"""Proposals in a row that need no training: the space has nothing new to offer."""
GRACE = 0.1
"""Share of the time limit that trials in flight may run over it before they are interrupted."""


@dataclass(frozen=True)
class Limits:
    """When a search ends: evaluated configurations in the study, or seconds of this search."""

    trials: int | None = None
    seconds: float | None = None

    def deadline(self, began: float) -> float:
        return float("inf") if self.seconds is None else began + self.seconds

    def last_call(self, began: float) -> float:
        """When trials still in flight are interrupted."""
        grace = 0.0 if self.seconds is None else max(GRACE * self.seconds, 5.0)
        return self.deadline(began) + grace


class Worker:
    """One process's part of the search of the study at `root`, begun at `began`: of
    `time.monotonic()`, which is one clock for every process of a machine, and which nobody sets.
    """

    def __init__(
        self,
        root: str,
        worker: int,
        limits: Limits,
        began: float,
        threads: int,
        emit: Callable[[Event], None],
        stop: Callable[[], bool],
    ) -> None:
        self.worker, self.limits, self.began, self.emit = worker, limits, began, emit
        self.asked_to_stop = stop
        self.parent = os.getppid()
        self.first_rungs_s: list[float] = []
        set_threads(threads)
        self.folder = StudyFolder.at(root)
        self.info = self.folder.read_info()
        self.bench = _workbench(self.info)
        space = space_of(self.folder, self.info)
        self.study = Study(self.folder, self.info, space, self.bench.backbone.shapes, worker)
        self.runner = TrialRunner(
            bench=self.bench,
            budget=budget_of(space, self.info),
            seed=self.info.seed,
            record=lambda assignment, value: self.study.record_rung(assignment.number, value),
            judge=self._judge,
            stop=self._interrupted,
            levers=Levers().without(*self.info.without),
        )

    def run(self) -> None:
        self.emit(WorkerReady(self.worker))
        idle = 0
        while not self._finished() and idle < EXHAUSTED:
            asked = self.study.ask()
            idle += 1
            if isinstance(asked, TrialResult):
                self.emit(TrialEnded(self.worker, asked))
            elif asked is not None:
                idle = 0
                self._evaluate(asked)

    def _evaluate(self, assignment: Assignment) -> None:
        began = TrialBegan(self.worker, assignment.number, assignment.configuration.describe())
        self.emit(began)
        folder = self.folder.trial(assignment.number)
        result = self.runner.run(assignment, folder)
        if result is None:
            self.study.put_back(assignment.number)
            return
        for told in self.study.tell(result):
            self.emit(TrialEnded(self.worker, told))
        folder.discard_checkpoint()

    def _judge(self, assignment: Assignment, value: RungValue) -> Decision:
        """Landmarks always go on: they are what the others are compared with."""
        if value.rung == 0:
            self.first_rungs_s.append(value.wall_s)
        if value.fraction >= 1:
            decision = Decision(True, "full length")
        elif assignment.origin == "landmark":
            decision = Decision(True, "a landmark")
        else:
            sign = 1.0 if self.info.metric.maximise else -1.0
            tuned_pct = assignment.configuration.tuned_pct(self.bench.backbone.shapes)
            point = RungPoint(assignment.number, tuned_pct, sign * value.metric)
            peers = self.study.peers(assignment.number, value.rung)
            decision = decide(point, peers, lambda metric: self.info.metric.written(sign * metric))
        self.emit(TrialEvaluated(self.worker, assignment.number, value, decision.reason))
        return decision

    def _finished(self) -> bool:
        if self._stopped() or time.monotonic() > self._last_start():
            return True
        enough = self.limits.trials is not None and self.study.begun() >= self.limits.trials
        return enough and not self.study.has_requeued()

    def _last_start(self) -> float:
        """No trial begins that would likely not reach its first rung in time."""
        usual = statistics.median(self.first_rungs_s) if self.first_rungs_s else 0.0
        return self.limits.deadline(self.began) - usual

    def _stopped(self) -> bool:
        """Asked to stop, or left alone by a parent that died."""
        return self.asked_to_stop() or os.getppid() != self.parent

    def _interrupted(self) -> bool:
        return self._stopped() or time.monotonic() > self.limits.last_call(self.began)


def _workbench(info: StudyInfo) -> Workbench:
    """The study's model and data; refused if either has changed since the study began."""
    bench = Workbench.prepare(
        info.model,
        task_of(info),
        info.device,
        info.max_length,
        tokenizers=tokenizers_of(info),
        precision=info.precision,
    )
    if bench.task.fingerprint != info.data_fingerprint:
        raise PeftsearchError(
            f"the data of task {info.task_name} changed since study '{info.name}' began: "
            "restore it, or begin a new study"
        )
    if bench.backbone.fingerprint != info.model_fingerprint:
        raise PeftsearchError(
            f"model '{info.model}' changed since study '{info.name}' began: "
            "restore it, or begin a new study"
        )
    return bench
