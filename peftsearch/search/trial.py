"""One trial: attach → train to the next rung → evaluate → record → go on, or stop.

A trial says how far it wants to be trained, and goes on when it has been: alone, or in passes that
it shares with others (`cohort_scheduler.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import torch

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.errors import DataError, NotANumber, OutOfMemory, TrialFailure
from peftsearch.policy.decisions import Pause, Stop, Verdict
from peftsearch.records.folder import TrialFolder
from peftsearch.records.records import RungValue, TrialResult
from peftsearch.search.samples import samples_of
from peftsearch.study.study import Assignment
from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.bench import Workbench
from peftsearch.training.cohort.cohort import member_optimisations
from peftsearch.training.frozen.cost import SHARED_BY
from peftsearch.training.frozen.states import Stopped
from peftsearch.training.loop import TrainingRun, memory_errors
from peftsearch.training.objectives.base import Evaluation
from peftsearch.training.optimisations import Optimisations

__all__ = ["Trial", "TrialRunner", "Wanted"]


@dataclass(frozen=True)
class Wanted:
    """Training up to a step. What is sent back says whether it was reached, or interrupted."""

    run: TrainingRun
    step: int


Trial = Generator[Wanted, bool, TrialResult | None]
"""Ends with the result, or None if the trial was interrupted (its checkpoint is written)."""


@dataclass(frozen=True)
class TrialRunner:
    """Evaluates assignments on one workbench.

    `record(assignment, value)` keeps a rung's value before anything depends on it;
    `judge(assignment, value)` then says whether the trial goes on, pauses or stops; `stop()`
    turning true interrupts a trial at the next step, with a checkpoint; `saved(assignment)` hears
    of every checkpoint that was written; `watched(assignment, run, evaluates)` hears of every step,
    and of evaluations as they begin; `make_room()` gives memory back that others can do without,
    and says whether there was any; `cut()` turning true ends an evaluation between two batches,
    with a checkpoint from which it begins anew.
    """

    bench: Workbench
    budget: TrainingBudget
    seed: int
    record: Callable[[Assignment, RungValue], object]
    judge: Callable[[Assignment, RungValue], Verdict]
    stop: Callable[[], bool]
    saved: Callable[[Assignment], None] = lambda _: None
    watched: Callable[[Assignment, TrainingRun, bool], None] = lambda *_: None
    make_room: Callable[[], bool] = lambda: False
    cut: Callable[[], bool] = lambda: False
    optimisations: Optimisations = Optimisations()  # noqa: RUF009 (frozen)
    low_rungs: str | None = None

    def run(self, assignment: Assignment, folder: TrialFolder) -> TrialResult | None:
        """A trial by itself: the result, or None if it was interrupted."""
        with closing(self.trial(assignment, folder)) as trial:
            try:
                wanted = next(trial)
                while True:
                    stop = partial(self._stops, assignment, wanted.run)
                    try:
                        reached = wanted.run.train_to(wanted.step, stop)
                    except TrialFailure as failure:
                        wanted = trial.throw(failure)
                    else:
                        wanted = trial.send(reached)
            except StopIteration as end:
                result: TrialResult | None = end.value
                return result

    def _stops(self, assignment: Assignment, run: TrainingRun) -> bool:
        """Called before every step of a trial that trains alone."""
        self.watched(assignment, run, False)
        return self.stop()

    def trial(
        self, assignment: Assignment, folder: TrialFolder, place: Backbone | None = None
    ) -> Trial:
        """The whole trial, to be trained by whoever holds it; in `place` of a cohort, if given."""
        try:
            with memory_errors():
                run = self._begin(assignment, folder, place)
        except TrialFailure as failure:
            return self._failed(assignment, folder, failure)
        with run:
            try:
                state = yield from self._climb(run, assignment, folder)
                return None if state is None else self._result(run, assignment, folder, state)
            except TrialFailure as failure:
                return self._failed(assignment, folder, failure, run)

    def _begin(
        self, assignment: Assignment, folder: TrialFolder, place: Backbone | None
    ) -> TrainingRun:
        run = self._new_run(assignment, place)
        if assignment.resumed and folder.checkpoint_path.exists():
            try:
                run.restore(folder.checkpoint_path)
            except DataError as error:  # a damaged checkpoint costs time, not the trial
                folder.log(f"begins anew: {error}")
                run.model.detach()
                run = self._new_run(assignment, place)  # some of it may have been read
        folder.keep_rungs_up_to(run.step)  # what lies beyond the checkpoint is trained again
        return run

    def _new_run(self, assignment: Assignment, place: Backbone | None) -> TrainingRun:
        configuration = assignment.configuration
        bench = self.bench.for_training(configuration.training)
        run = TrainingRun(
            place or bench.backbone,
            *(bench.train, bench.objective, configuration, self.budget, self.seed),
            optimisations=member_optimisations(self.optimisations) if place else self.optimisations,
            shared_by=SHARED_BY,
            low_rungs=self.low_rungs,
        )
        run.model.before_batch = self._before_batch
        return run

    def _before_batch(self) -> None:
        """Called before each batch of an evaluation; Stopped to end it."""
        if self.cut():
            raise Stopped

    def _climb(
        self, run: TrainingRun, assignment: Assignment, folder: TrialFolder
    ) -> Generator[Wanted, bool, Literal["full", "stopped"] | None]:
        known = {value.rung: value for value in folder.read_curve()}
        last = len(run.rung_steps) - 1
        for rung, step in run.rungs:
            if step < run.step:
                continue
            reached = yield Wanted(run, step)
            if not reached:
                self._save(run, assignment, folder)
                return None
            value = known.get(rung)
            if value is None:
                self.watched(assignment, run, True)
                try:
                    value = self._evaluate(run, rung, folder)
                except Stopped:
                    self._save(run, assignment, folder)
                    return None
                self.record(assignment, value)
                if rung < last:
                    self._save(run, assignment, folder)
            verdict = self.judge(assignment, value)
            if isinstance(verdict, Pause):
                return None  # its checkpoint was written before it was judged
            if isinstance(verdict, Stop):
                return "stopped"
        return "full"

    def _save(self, run: TrainingRun, assignment: Assignment, folder: TrialFolder) -> None:
        run.save(folder.checkpoint_path)
        self.saved(assignment)

    def _evaluate(self, run: TrainingRun, rung: int, folder: TrialFolder) -> RungValue:
        is_last = rung == len(run.rung_steps) - 1
        bench, metric = self.bench.for_training(run.training), self.bench.task.metric
        limit = None if is_last else self.budget.rung_examples
        evaluation = self._predicted(run, bench.validation, limit, metric.of != "loss")
        compared = evaluation.pair(metric, self.bench.task.validation.targets)
        value = metric.value(*compared)
        if not math.isfinite(value):
            raise NotANumber(f"{metric.name} became {value} at step {run.step}")
        if is_last:
            folder.write_samples(samples_of(self.bench.task, evaluation))
        return RungValue(
            rung=rung,
            step=run.step,
            fraction=self.budget.rungs[rung],
            metric=value,
            metric_se=metric.standard_error(*compared),
            loss=evaluation.loss,
            train_loss=run.smoothed_loss,
            examples=evaluation.examples,
            wall_s=round(run.wall_s, 3),
            cpu_s=round(run.cpu_s, 3),
            eval_s=round(run.eval_s, 3),
            low_precision=run.low_rungs.evaluated_in(run.step),
        )

    def _predicted(
        self, run: TrainingRun, data: Encoded, limit: int | None, predict: bool
    ) -> Evaluation:
        """An evaluation; once more if memory did not suffice and there is more now."""
        try:
            return run.evaluate(data, limit, predict)
        except OutOfMemory:
            if not self.make_room():
                raise
        if torch.cuda.is_available():  # with the exception gone nothing holds what was made
            torch.cuda.empty_cache()
        return run.evaluate(data, limit, predict)

    def _result(
        self,
        run: TrainingRun,
        assignment: Assignment,
        folder: TrialFolder,
        state: Literal["full", "stopped"],
    ) -> TrialResult:
        curve = folder.read_curve()
        if state == "full":
            run.save_adapter(folder.adapter_path)
        result = self._record(assignment, state)
        return result.model_copy(
            update={
                "metric": curve[-1].metric,
                "metric_se": curve[-1].metric_se,
                "rung": curve[-1].rung,
                "curve": tuple(curve),
                **_course(run),
            }
        )

    def _failed(
        self,
        assignment: Assignment,
        folder: TrialFolder,
        failure: TrialFailure,
        run: TrainingRun | None = None,
    ) -> TrialResult:
        """What came of a trial that was lost, in training or (no run) as it was attached."""
        folder.log(f"{failure.cause}: {failure}")
        why = {"cause": failure.cause, "message": str(failure), "curve": tuple(folder.read_curve())}
        course = _course(run) if run is not None else {}
        return self._record(assignment, "failed").model_copy(update=why | course)

    def _record(
        self, assignment: Assignment, state: Literal["full", "stopped", "failed"]
    ) -> TrialResult:
        """Everything about the trial but its outcome."""
        configuration, shapes = assignment.configuration, self.bench.backbone.shapes
        backbone = self.bench.for_training(configuration.training).backbone
        return TrialResult(
            number=assignment.number,
            state=state,
            origin=assignment.origin,
            method=assignment.method,
            configuration=configuration.to_json(),
            configuration_hash=configuration.hash,
            description=configuration.describe(),
            budget_pct=assignment.budget_pct,
            tuned_parameters=configuration.tuned_parameters(shapes),
            trained_parameters=configuration.trained_parameters(shapes, self.bench.task.outputs),
            tuned_pct=configuration.tuned_pct(shapes),
            seed=self.seed,
            threads=torch.get_num_threads(),
            device=str(self.bench.backbone.device),
            dtype=str(backbone.dtype).removeprefix("torch."),
            model_fingerprint=backbone.fingerprint,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _course(run: TrainingRun) -> dict[str, Any]:
    """How a run went: what it cost, and what it shared."""
    return {
        "wall_s": round(run.wall_s, 3),
        "cpu_s": round(run.cpu_s, 3),
        "eval_s": round(run.eval_s, 3),
        "kept_layers": run.frozen.kept_layers,
        "cohort": run.cohort,
    }
