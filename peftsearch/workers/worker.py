"""A worker: asks for trials, trains them and tells their results, until a limit or a stop.

It also recovers dead workers' trials, and can wait for other workers to finish.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch

from peftsearch.backbone.device import use_device, worker_device
from peftsearch.backbone.savings.low_precision import low_precision
from peftsearch.errors import PeftsearchError
from peftsearch.policy.decisions import Nothing, Verdict
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import RungValue, StudyInfo, TrialResult
from peftsearch.records.task_spec import task_of
from peftsearch.study.settings import budget_of, space_of, tokenizers_of
from peftsearch.study.study import Assignment, Study
from peftsearch.training.bench import Workbench, set_threads
from peftsearch.training.cohort.size import CohortSize
from peftsearch.training.loop import TrainingRun
from peftsearch.training.memory.allocator import BETWEEN_TRIALS, trim_above
from peftsearch.training.optimisations import Optimisations
from peftsearch.workers.cohort_scheduler import CohortScheduler
from peftsearch.workers.events import (
    Event,
    Phase,
    TrialBegan,
    TrialEnded,
    TrialEvaluated,
    TrialProgress,
    TrialRequeued,
    WorkerReady,
)
from peftsearch.workers.limits import Limits, WorkerSettings, unique_name_prefix, worker_name
from peftsearch.workers.trial import TrialRunner

__all__ = ["Worker", "bench_of"]

_DUPLICATES = 8
"""Proposals in a row that need no training, after which running trials continue first."""
EXHAUSTED = 200
"""Proposals in a row that need no training: the space has nothing new to offer."""
_SHOW_S = 1.0
"""Seconds between two progress events of a trial."""
_WAIT_S = 1.0
"""Seconds between asking again, while there is nothing to train."""


class Worker:
    """One process's part of the search of the study at `root`. `start_clock`, called once model and
    data are loaded, returns the search's start in `time.monotonic()` seconds, which all processes
    of a machine share.
    """

    def __init__(
        self,
        root: str,
        worker: int,
        limits: Limits,
        start_clock: Callable[[], float],
        settings: WorkerSettings,
        emit: Callable[[Event], None],
        stop: Callable[[], bool],
    ) -> None:
        self.worker, self.limits, self.start_clock, self.emit = worker, limits, start_clock, emit
        self.began = float("inf")
        self.asked_to_stop = stop
        self.parent = os.getppid()
        self.began_at: dict[int, float] = {}
        """Trials that have not reached a rung, on this process's clock."""
        self.first_rungs_s: list[float] = []
        self._shown_at: dict[int, float] = {}
        set_threads(settings.threads)
        self.folder = StudyFolder.at(root)
        self.info = self.folder.read_info()
        self.name = worker_name(settings.name_prefix or unique_name_prefix(), worker)
        self._recovered_s = float("-inf")
        self._prepare(settings)

    def _prepare(self, settings: WorkerSettings) -> None:
        """Load model and data, open the study, and make ready to train."""
        device = settings.device or self.info.device
        device = worker_device(device, self.worker, torch.cuda.device_count())
        use_device(device)
        self.bench = bench_of(self.info, device)
        space, shapes = space_of(self.folder, self.info), self.bench.backbone.shapes
        self.study = Study(self.folder, self.info, space, shapes, self.worker, self.name)
        runner = TrialRunner(
            bench=self.bench,
            budget=budget_of(space, self.info),
            seed=self.info.seed,
            record=lambda assignment, value: self.study.record_rung(assignment.number, value),
            judge=self._judge,
            stop=self._interrupted,
            abort_evaluation=self._stopped,  # a search whose time is over lets evaluations finish
            on_checkpoint=lambda assignment: self.study.publish_checkpoint(assignment.number),
            on_progress=self._on_progress,
            optimisations=Optimisations().without(*self.info.without),
            low_rungs=self.info.low_rungs,
        )
        size = CohortSize.of(settings.cohort, self.bench.backbone.device)
        self.scheduler = CohortScheduler(runner, self.folder, size)

    def run(self) -> None:
        """Ask and train until there is no more to do."""
        self.study.join()
        self.began = self.start_clock()
        try:
            self.emit(WorkerReady(self.worker))
            self._work()
            while self._waits_for_others():
                time.sleep(_WAIT_S)
                self._recover_dead_workers()
                self._work()
        finally:
            self.study.leave()
            self.study.close()

    def _work(self) -> None:
        """Ask until the cohort is full, advance it until a trial ends, and so on."""
        idle = 0
        while True:
            while self.scheduler.has_room and idle < EXHAUSTED and not self._finished():
                asked = self._begin_one()
                if isinstance(asked, Nothing):
                    break
                idle = 0 if isinstance(asked, Assignment) else idle + 1
                if idle >= _DUPLICATES and self.scheduler.in_flight:
                    break  # they may wait for one of those
            if self.scheduler.is_idle:
                return
            for assignment, result in self.scheduler.advance():
                self._end(assignment, result)
                idle = 0

    def _waits_for_others(self) -> bool:
        """Whether to wait for trials of other workers, which this worker takes over if they die."""
        if not self.limits.wait_for_others or self._interrupted():
            return False
        may_be_needed = self.study.has_unfinished_trials()
        return may_be_needed and time.monotonic() < self.limits.deadline(self.began)

    def _recover_dead_workers(self) -> None:
        """Recover the trials of dead workers."""
        if time.monotonic() - self._recovered_s >= self.study.heartbeat.poll_s:
            for result in self.study.recover():
                self.emit(TrialEnded(self.worker, result))
            self._recovered_s = time.monotonic()

    def _begin_one(self) -> Assignment | TrialResult | Nothing | None:
        """Ask for a trial, and begin it if it needs training; one that trains alone is trained to
        its end.
        """
        self._recover_dead_workers()
        asked = self.study.ask(self.limits.trials)
        if isinstance(asked, TrialResult):
            self.emit(TrialEnded(self.worker, asked))
        if not isinstance(asked, Assignment):
            return asked
        described = asked.configuration.describe()
        self.emit(TrialBegan(self.worker, asked.number, described, asked.method))
        self.began_at[asked.number] = time.monotonic()
        ended = self.scheduler.begin(asked)
        if ended is not None:
            self._end(*ended)
        return asked

    def _end(self, assignment: Assignment, result: TrialResult | None) -> None:
        self._shown_at.pop(assignment.number, None)
        if "allocator" not in self.info.without:
            trim_above(BETWEEN_TRIALS)
        if result is None:
            self.study.requeue(assignment.number)
            self.emit(TrialRequeued(self.worker, assignment.number))
            return
        for told in self.study.tell(result):
            self.emit(TrialEnded(self.worker, told))

    def _on_progress(self, assignment: Assignment, run: TrainingRun, evaluates: bool) -> None:
        """Emit a trial's progress, at most once every `_SHOW_S` seconds."""
        now = time.monotonic()
        if evaluates or now - self._shown_at.get(assignment.number, 0.0) >= _SHOW_S:
            self._shown_at[assignment.number] = now
            progress = (run.step, run.full_steps, run.smoothed_loss)
            self.emit(
                TrialProgress(self.worker, assignment.number, *progress, _phase(run, evaluates))
            )

    def _judge(self, assignment: Assignment, value: RungValue) -> Verdict:
        """The policy's verdict on a trial that reached a rung."""
        began = self.began_at.pop(assignment.number, None)
        if value.rung == 0 and began is not None and not assignment.resumed:
            self.first_rungs_s.append(time.monotonic() - began)
        verdict = self.study.after_rung(assignment, value)
        self.emit(TrialEvaluated(self.worker, assignment.number, value, verdict.reason))
        return verdict

    def _finished(self) -> bool:
        if self._stopped() or time.monotonic() > self._last_start():
            return True
        enough = self.limits.trials is not None and self.study.limit_reached(self.limits.trials)
        return enough and not self.study.has_requeued()

    def _last_start(self) -> float:
        """The time after which a new trial would probably not reach its first rung in time."""
        usual = statistics.median(self.first_rungs_s) if self.first_rungs_s else 0.0
        return self.limits.deadline(self.began) - usual

    def _stopped(self) -> bool:
        """Whether a stop was requested, or the parent process died."""
        return self.asked_to_stop() or os.getppid() != self.parent

    def _interrupted(self) -> bool:
        return self._stopped() or time.monotonic() > self.limits.hard_deadline(self.began)


def _phase(run: TrainingRun, evaluates: bool) -> Phase:
    return "evaluates" if evaluates else "prepares" if run.prepares else "trains"


def bench_of(info: StudyInfo, device: str) -> Workbench:
    """The study's model and data; refused if either has changed since the study began, or if this
    CPU cannot compute its low rungs.
    """
    if info.low_rungs is not None:
        low_precision(info.low_rungs).refuse_if_missing()
    bench = Workbench.prepare(
        info.model,
        task_of(info),
        device,
        info.max_length,
        tokenizers=tokenizers_of(info),
        precision=info.precision,
    )
    if bench.task.fingerprint != info.data_fingerprint:
        raise PeftsearchError(
            f"the data of task {info.task_name} changed since study '{info.name}' began, or are "
            "read differently by this version (see CHANGELOG.md): restore them, or "
            "start a new study"
        )
    if bench.backbone.fingerprint != info.model_fingerprint:
        raise PeftsearchError(
            f"model '{info.model}' changed since study '{info.name}' began: "
            "restore it, or start a new study"
        )
    return bench
