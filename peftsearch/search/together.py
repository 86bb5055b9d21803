"""Trials that share the passes of a cohort, each on its own straight line (`trial.py`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from peftsearch.errors import OutOfMemory, TrialFailure
from peftsearch.search.folder import StudyFolder
from peftsearch.search.records import TrialResult
from peftsearch.search.study import Assignment
from peftsearch.search.trial import Trial, TrialRunner, Wanted
from peftsearch.training.cohort import Cohort, why_not_in_a_cohort
from peftsearch.training.cohort_size import CohortSize, memory_of
from peftsearch.training.loop import TrainingRun

__all__ = ["Ended", "TrialsTogether"]

Ended = tuple[Assignment, TrialResult | None]
"""A trial and its result; None: it was interrupted, and its checkpoint is written."""

_WINDOW = 16
"""Passes that are timed as one."""
_SETTLING = 4
"""Passes before them, in which a device finds its memory and its kernels."""


@dataclass
class _InFlight:
    assignment: Assignment
    trial: Trial
    wanted: Wanted

    @property
    def run(self) -> TrainingRun:
        return self.wanted.run


@dataclass
class TrialsTogether:
    """Up to `size.size` trials in flight on one backbone."""

    runner: TrialRunner
    folder: StudyFolder
    size: CohortSize
    in_flight: list[_InFlight] = field(default_factory=list)
    _ended: list[Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cohort = Cohort(self.runner.bench.backbone)
        self._clock = _PassClock(self.cohort.backbone.device, self.size)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight, nor waits to be told."""
        return not self.in_flight and not self._ended

    @property
    def has_room(self) -> bool:
        return len(self.in_flight) < self.size.size

    def takes(self, assignment: Assignment) -> bool:
        """Whether a trial can share passes: some cannot, some need another precision, and one that
        was cut off may have been what cut it off.
        """
        if self.size.most == 1 or self.runner.low_rungs is not None or assignment.alone:
            return False
        one = assignment.configuration
        bench = self.runner.bench.for_training(one.training)
        same = bench.backbone.model is self.cohort.backbone.model
        return same and why_not_in_a_cohort(self.cohort.backbone, one) is None

    def join(self, assignment: Assignment) -> None:
        """Attach a trial's configuration; it trains from the next pass on."""
        folder = self.folder.trial(assignment.number)
        trial = self.runner.trial(assignment, folder, self.cohort.place())
        self._go_on(assignment, trial, lambda: next(trial))

    def advance(self) -> list[Ended]:
        """Passes until a trial ends, or the size has grown; what has ended."""
        room = self.has_room
        while self.in_flight and not self._ended and self.has_room == room:
            self._advance()
        ended, self._ended = self._ended, []
        return ended

    def _advance(self) -> None:
        """One pass of all, and whatever it has brought to its next rung."""
        if self.runner.stop():
            self._put_back(self.in_flight)
            return
        runs = [one.run for one in self.in_flight]
        lacking = None
        try:
            failed = self.cohort.step(runs)
        except OutOfMemory as failure:
            lacking = str(failure)
        if lacking is not None:  # with the exception gone nothing holds what the pass had made
            self._too_many(lacking)
            return
        self._clock.passed(runs)
        for one in list(self.in_flight):
            if one.run in failed:
                self._leave(one, failed[one.run])
            elif one.run.step >= one.wanted.step and one.run.between_steps:
                self._leave(one)

    def _leave(self, one: _InFlight, failure: TrialFailure | None = None) -> None:
        """A trial leaves the passes, to be evaluated; it may come back for more."""
        self.in_flight.remove(one)
        self._clock.restart()
        failure = failure or _lost(one.run)
        self._go_on(
            one.assignment,
            one.trial,
            lambda: one.trial.throw(failure) if failure is not None else one.trial.send(True),
        )

    def _go_on(self, assignment: Assignment, trial: Trial, step: Callable[[], Wanted]) -> None:
        """Let a trial do what it does between two trainings."""
        try:
            wanted = step()
            while wanted.run.step >= wanted.step:
                wanted = trial.send(True)
        except StopIteration as end:
            self._ended.append((assignment, end.value))
        else:
            self.in_flight.append(_InFlight(assignment, trial, wanted))

    def _too_many(self, lacking: str) -> None:
        """Half of the trials are put back, for later; one that does not fit alone has failed."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        count = len(self.in_flight)
        if count == 1:
            self._leave(self.in_flight[0], OutOfMemory(lacking))
            return
        self.size.shrink(count // 2)
        self._put_back(self.in_flight[count // 2 :])

    def _put_back(self, some: list[_InFlight]) -> None:
        for one in list(some):
            failure = _lost(one.run)
            if failure is not None:
                self._leave(one, failure)
                continue
            self.in_flight.remove(one)
            self._clock.restart()
            self._go_on(one.assignment, one.trial, lambda one=one: one.trial.send(False))  # type: ignore[misc]


def _lost(run: TrainingRun) -> TrialFailure | None:
    """What losses that nobody has looked at yet say of a run."""
    try:
        run.watch.look()
    except TrialFailure as failure:
        return failure
    return None


class _PassClock:
    """Times passes of unchanged members, for the size to be chosen by."""

    def __init__(self, device: torch.device, size: CohortSize) -> None:
        self.device, self.size = device, size
        self.before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        self._members: list[TrainingRun] = []
        self._passes, self._began = 0, 0.0

    def passed(self, runs: list[TrainingRun]) -> None:
        if self.size.is_settled:
            return
        if runs != self._members:
            self._members, self._passes = list(runs), 0
        self._passes += 1
        if self._passes == _SETTLING:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            self._began = self._now()
        elif self._passes == _SETTLING + _WINDOW:
            pass_s = (self._now() - self._began) / _WINDOW
            self.size.measured(len(runs), pass_s, memory_of(self.device, self.before))
            self.restart()

    def restart(self) -> None:
        """Something else than passes has taken time."""
        self._members = []

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
