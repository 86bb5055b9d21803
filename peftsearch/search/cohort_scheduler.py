"""Trials that share the passes of a cohort, each on its own straight line (`trial.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from peftsearch.errors import OutOfMemory, TrialFailure
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from peftsearch.search.trial import Trial, TrialRunner, Wanted
from peftsearch.study.study import Assignment
from peftsearch.training.cohort.cohort import Cohort, why_not_in_a_cohort
from peftsearch.training.cohort.pass_clock import PassClock
from peftsearch.training.cohort.size import CohortSize
from peftsearch.training.loop import TrainingRun

__all__ = ["CohortScheduler", "Ended"]

Ended = tuple[Assignment, TrialResult | None]
"""A trial and its result; None: it was interrupted, and its checkpoint is written."""


@dataclass
class _InFlight:
    assignment: Assignment
    trial: Trial
    wanted: Wanted

    @property
    def run(self) -> TrainingRun:
        return self.wanted.run


@dataclass
class CohortScheduler:
    """Up to `size.size` trials in flight on one backbone."""

    runner: TrialRunner
    folder: StudyFolder
    size: CohortSize
    in_flight: list[_InFlight] = field(default_factory=list)
    _ended: list[Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cohort = Cohort.of(self.runner.bench.backbone, self.runner.optimisations, self._say)
        self.runner = replace(self.runner, make_room=self.cohort.give_back)
        self._clock = PassClock(self.cohort.backbone.device, self.size)

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
        self.cohort.give_back()  # recordings are of other members
        folder = self.folder.trial(assignment.number)
        trial = self.runner.trial(assignment, folder, self.cohort.place())
        self._go_on(assignment, trial, lambda: next(trial))

    def alone(self, assignment: Assignment) -> TrialResult | None:
        """A trial trained by itself, while the others wait; None if it was interrupted."""
        self.cohort.give_back()
        return self.runner.run(assignment, self.folder.trial(assignment.number))

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
        self._clock.passed(runs, self.cohort.was_usual)
        for one in self.in_flight:
            self.runner.watched(one.assignment, one.run, False)
        for one in list(self.in_flight):
            if one.run in failed:
                self._leave(one, failed[one.run])
            elif one.run.step >= one.wanted.step and one.run.between_steps:
                self._leave(one)

    def _leave(self, one: _InFlight, failure: TrialFailure | None = None) -> None:
        """A trial leaves the passes, to be evaluated; it may come back for more, to its place, so
        that what was recorded of these members stays right.
        """
        place = self.in_flight.index(one)
        self.in_flight.remove(one)
        self._clock.restart()
        failure = failure or _lost(one.run)
        self._go_on(
            one.assignment,
            one.trial,
            lambda: one.trial.throw(failure) if failure is not None else one.trial.send(True),
            place,
        )

    def _go_on(
        self,
        assignment: Assignment,
        trial: Trial,
        step: Callable[[], Wanted],
        place: int | None = None,
    ) -> None:
        """Let a trial do what it does between two trainings; it is then at `place`, or the last."""
        try:
            wanted = step()
            while wanted.run.step >= wanted.step:
                wanted = trial.send(True)
        except StopIteration as end:
            self.cohort.give_back()
            self._ended.append((assignment, end.value))
        else:
            place = len(self.in_flight) if place is None else place
            self.in_flight.insert(place, _InFlight(assignment, trial, wanted))

    def _say(self, line: str) -> None:
        """Into the logs of all that are in flight."""
        for one in self.in_flight:
            self.folder.trial(one.assignment.number).log(line)

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
