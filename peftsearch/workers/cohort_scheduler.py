"""Cohort scheduler: trains several running trials of one backbone in shared passes.

Each trial is a generator (`trial.py`); the scheduler trains all of them one pass at a time, lets a
trial evaluate once it has reached its rung, and requeues trials that do not fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from peftsearch.errors import OutOfMemory, TrialFailure
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from peftsearch.study.study import Assignment
from peftsearch.training.cohort.cohort import Cohort, why_not_in_a_cohort
from peftsearch.training.cohort.pass_clock import PassClock
from peftsearch.training.cohort.size import CohortSize
from peftsearch.training.loop import TrainingRun
from peftsearch.workers.trial import PreparedTrial, TrainTo, TrialRunner, TrialSteps

__all__ = ["CohortScheduler", "Ended"]

Ended = tuple[Assignment, TrialResult | None]
"""A trial and its result; None if it was interrupted, with a checkpoint written."""


@dataclass
class _InFlight:
    assignment: Assignment
    steps: TrialSteps
    request: TrainTo

    @property
    def run(self) -> TrainingRun:
        return self.request.run

    @property
    def is_due(self) -> bool:
        """Whether training has reached the requested step."""
        return self.run.step >= self.request.step and self.run.pieces.between_steps


@dataclass
class CohortScheduler:
    """Runs up to `size.size` trials at once on one backbone."""

    runner: TrialRunner
    folder: StudyFolder
    size: CohortSize
    in_flight: list[_InFlight] = field(default_factory=list)
    _ended: list[Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cohort = Cohort.of(self.runner.bench.backbone, self.runner.optimisations, self._log)
        self.runner = replace(self.runner, make_room=self.cohort.free_memory)
        self._clock = PassClock(self.cohort.backbone.device, self.size)

    @property
    def is_idle(self) -> bool:
        """Whether no trial is running, and none has ended without having been returned."""
        return not self.in_flight and not self._ended

    @property
    def has_room(self) -> bool:
        """Whether another trial can be begun before the next pass."""
        return len(self.in_flight) < self.size.size

    def begin(self, assignment: Assignment) -> Ended | None:
        """Start a trial: it joins the cohort, to train from the next pass on. One that cannot share
        passes is trained to its end, while the others wait, and returned.
        """
        trial = self.runner.prepare(assignment, self.folder.trial(assignment.number))
        self.cohort.free_memory()  # recordings are of other members
        if not self.shares_passes(trial):
            return assignment, trial.run()
        steps = trial.steps(self.cohort.member_backbone())
        self._resume(assignment, steps, lambda: next(steps))
        return None

    def shares_passes(self, trial: PreparedTrial) -> bool:
        """Whether a trial can join the cohort: not if it needs another precision, and not if it was
        cut off together with all others of a cohort, since it may be the cause.
        """
        if self.size.most == 1 or self.runner.low_rungs is not None or trial.assignment.alone:
            return False
        backbone, own = self.cohort.backbone, trial.bench.backbone
        same = own.model is backbone.model and own.tf32 == backbone.tf32
        return same and why_not_in_a_cohort(backbone, trial.assignment.configuration) is None

    def advance(self) -> list[Ended]:
        """Run passes until a trial ends or there is room for another one; returns those that
        ended.
        """
        room = self.has_room
        while self.in_flight and not self._ended and self.has_room == room:
            self._pass()
        ended, self._ended = self._ended, []
        return ended

    def _pass(self) -> None:
        """One pass of all trials; those it brought to their next rung are evaluated."""
        if self.runner.stop():
            self._interrupt(self.in_flight)
            return
        runs = [one.run for one in self.in_flight]
        out_of_memory = None
        try:
            failed = self.cohort.step(runs)
        except OutOfMemory as failure:
            out_of_memory = str(failure)
        # Outside `except`: the exception's traceback holds the tensors of the failed pass.
        if out_of_memory is not None:
            self._halve(out_of_memory)
            return
        self._clock.passed(runs, self.cohort.was_ordinary)
        for one in self.in_flight:
            self.runner.on_progress(one.assignment, one.run, False)
        for one in list(self.in_flight):
            if one.run in failed:
                self._leave(one, failed[one.run])
            elif one.is_due:
                self._leave(one)

    def _leave(self, one: _InFlight, failure: TrialFailure | None = None) -> None:
        """Take a trial out of the passes, to be evaluated or to fail. If it continues training, it
        returns to the same index: recordings are of these members in this order.
        """
        index = self.in_flight.index(one)
        self.in_flight.remove(one)
        self._clock.restart()
        failure = failure or _late_failure(one.run)
        self._resume(
            one.assignment,
            one.steps,
            lambda: one.steps.throw(failure) if failure is not None else one.steps.send(True),
            index,
        )

    def _resume(
        self,
        assignment: Assignment,
        steps: TrialSteps,
        step: Callable[[], TrainTo],
        index: int | None = None,
    ) -> None:
        """Run a trial up to its next request, and put it at `index` (None: last) among those in
        flight; or note that it has ended.
        """
        try:
            request = step()
            # A checkpoint at a rung: it is to be evaluated or judged before it trains.
            while request.run.step >= request.step:
                request = steps.send(True)
        except StopIteration as end:
            self.cohort.free_memory()
            self._ended.append((assignment, end.value))
        else:
            index = len(self.in_flight) if index is None else index
            self.in_flight.insert(index, _InFlight(assignment, steps, request))

    def _halve(self, out_of_memory: str) -> None:
        """Requeue half of the trials; a trial that does not fit by itself fails."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        count = len(self.in_flight)
        if count == 1:
            self._leave(self.in_flight[0], OutOfMemory(out_of_memory))
            return
        self.size.shrink(count // 2)
        self._interrupt(self.in_flight[count // 2 :])

    def _interrupt(self, some: list[_InFlight]) -> None:
        """Interrupt trials: each writes its checkpoint and ends without a result."""
        for one in list(some):
            failure = _late_failure(one.run)
            if failure is not None:
                self._leave(one, failure)
                continue
            self.in_flight.remove(one)
            self._clock.restart()
            self._resume(one.assignment, one.steps, lambda one=one: one.steps.send(False))  # type: ignore[misc]

    def _log(self, line: str) -> None:
        """Write a line to the logs of all trials in flight."""
        for one in self.in_flight:
            self.folder.trial(one.assignment.number).log(line)


def _late_failure(run: TrainingRun) -> TrialFailure | None:
    """The failure found in losses that were not checked yet: on a GPU they are checked only every
    few steps.
    """
    try:
        run.loss_monitor.check()
    except TrialFailure as failure:
        return failure
    return None
