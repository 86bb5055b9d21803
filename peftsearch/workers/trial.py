"""One trial: attach → train to the next rung → evaluate → record → judge, until it ends.

A trial is a generator: it yields the step to train to, and continues once that is done, by
`PreparedTrial.run`, alone, or by `cohort_scheduler.py` in passes shared with other trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.errors import DataError, NotANumber, OutOfMemory, TrialFailure
from peftsearch.policy.decisions import Pause, Stop, Verdict
from peftsearch.records.examples import Examples, write_examples
from peftsearch.records.folder import TrialFolder
from peftsearch.records.records import RungValue, TrialResult
from peftsearch.study.study import Assignment
from peftsearch.training.bench import Workbench
from peftsearch.training.cohort.cohort import member_optimisations
from peftsearch.training.frozen.caching_cost import SHARED_BY
from peftsearch.training.frozen.states import Stopped
from peftsearch.training.loop import TrainingRun
from peftsearch.training.memory.out_of_memory import memory_errors
from peftsearch.training.objectives.base import Evaluation
from peftsearch.training.optimisations import Optimisations
from peftsearch.workers.example_predictions import example_predictions
from peftsearch.workers.trial_result import EndState, ended_result, failed_result

__all__ = ["PreparedTrial", "TrainTo", "TrialRunner", "TrialSteps"]


@dataclass(frozen=True)
class TrainTo:
    """A trial's request to train `run` up to `step`. The answer to send is True once the step was
    reached, False if training was interrupted before.
    """

    run: TrainingRun
    step: int


TrialSteps = Generator[TrainTo, bool, TrialResult | None]
"""Returns the result, or None if the trial was interrupted: its checkpoint is then written."""


@dataclass(frozen=True)
class TrialRunner:
    """The settings that all trials of a worker share, and its callbacks.

    - `record(assignment, value)` keeps a rung's value before anything depends on it;
    - `judge(assignment, value)` then decides whether the trial continues, pauses or stops;
    - `stop()` turning true interrupts a trial at its next step, with a checkpoint;
    - `abort_evaluation()` turning true ends an evaluation between two batches, with a checkpoint
      from which the evaluation is begun again;
    - `on_checkpoint(assignment)` is called after every checkpoint;
    - `on_progress(assignment, run, evaluates)` is called before every step of a trial that trains
      alone, after every step in a cohort, and as each evaluation begins;
    - `make_room()` frees memory that others can do without; returns whether there was any.
    """

    bench: Workbench
    budget: TrainingBudget
    seed: int
    record: Callable[[Assignment, RungValue], object]
    judge: Callable[[Assignment, RungValue], Verdict]
    stop: Callable[[], bool]
    on_checkpoint: Callable[[Assignment], None] = lambda _: None
    on_progress: Callable[[Assignment, TrainingRun, bool], None] = lambda *_: None
    make_room: Callable[[], bool] = lambda: False
    abort_evaluation: Callable[[], bool] = lambda: False
    optimisations: Optimisations = Optimisations()  # noqa: RUF009 (frozen)
    low_rungs: str | None = None

    def prepare(self, assignment: Assignment, folder: TrialFolder) -> PreparedTrial:
        """The trial on the bench of its precision and text length, resolved here and only here.

        Raises ConfigurationError where that length leaves nothing of a text.
        """
        bench = self.bench.for_training(assignment.configuration.training)
        return PreparedTrial(self, assignment, folder, bench)

    def run(self, assignment: Assignment, folder: TrialFolder) -> TrialResult | None:
        """The result of a trial trained by itself; None if it was interrupted."""
        return self.prepare(assignment, folder).run()


@dataclass(frozen=True)
class PreparedTrial:
    """One trial, with the bench that its configuration trains on."""

    runner: TrialRunner
    assignment: Assignment
    folder: TrialFolder
    bench: Workbench

    def run(self) -> TrialResult | None:
        """Train it by itself; None if it was interrupted."""
        with closing(self.steps()) as steps:
            try:
                request = next(steps)
                while True:
                    stop = partial(self._stops, request.run)
                    try:
                        reached = request.run.train_to(request.step, stop)
                    except TrialFailure as failure:
                        request = steps.throw(failure)
                    else:
                        request = steps.send(reached)
            except StopIteration as end:
                result: TrialResult | None = end.value
                return result

    def _stops(self, run: TrainingRun) -> bool:
        """Called before every step of a trial that trains alone."""
        self.runner.on_progress(self.assignment, run, False)
        return self.runner.stop()

    def steps(self, backbone: Backbone | None = None) -> TrialSteps:
        """The trial as a generator; the caller trains. `backbone`: the one to attach to, for a
        member of a cohort.
        """
        try:
            with memory_errors():
                run = self._begin(backbone)
        except TrialFailure as failure:
            return self._failed(failure)
        with run:
            try:
                state = yield from self._train_rungs(run)
                return None if state is None else self._ended(run, state)
            except TrialFailure as failure:
                return self._failed(failure, run)

    def _begin(self, backbone: Backbone | None) -> TrainingRun:
        """A new run, continued from its checkpoint if there is one."""
        run = self._new_run(backbone)
        if self.assignment.resumed and self.folder.checkpoint_path.exists():
            try:
                run.restore(self.folder.checkpoint_path)
            except DataError as error:  # a damaged checkpoint costs time, not the trial
                self.folder.log(f"restarts from the beginning: {error}")
                run.model.detach()
                run = self._new_run(backbone)  # some of the damaged tensors may have been read
        self.folder.keep_rungs_up_to(run.step)  # rungs beyond the checkpoint are trained again
        return run

    def _new_run(self, backbone: Backbone | None) -> TrainingRun:
        runner, bench = self.runner, self.bench
        own = runner.optimisations
        run = TrainingRun(
            backbone or bench.backbone,
            *(bench.train, bench.objective, self.assignment.configuration),
            *(runner.budget, runner.seed),
            optimisations=own if backbone is None else member_optimisations(own),
            shared_by=SHARED_BY,
            low_rungs=runner.low_rungs,
        )
        run.model.before_batch = self._before_batch
        return run

    def _before_batch(self) -> None:
        """Called before each batch of an evaluation; raises Stopped to end it."""
        if self.runner.abort_evaluation():
            raise Stopped

    def _train_rungs(self, run: TrainingRun) -> Generator[TrainTo, bool, EndState | None]:
        """From rung to rung until the last one, or until it is stopped; None if interrupted."""
        known = {value.rung: value for value in self.folder.read_curve()}
        last = len(run.rung_steps) - 1
        for rung, step in run.rungs:
            if step < run.step:  # judged before the checkpoint that the run continues from
                continue
            reached = yield TrainTo(run, step)
            if not reached:
                self._save(run)
                return None
            value = known.get(rung)
            if value is None:
                self.runner.on_progress(self.assignment, run, True)
                try:
                    value = self._evaluate(run, rung)
                except Stopped:
                    self._save(run)
                    return None
                self.runner.record(self.assignment, value)
                if rung < last:  # full length leaves the adapter instead
                    self._save(run)
            verdict = self.runner.judge(self.assignment, value)
            if isinstance(verdict, Pause):
                return None  # its checkpoint was written before it was judged
            if isinstance(verdict, Stop):
                return "stopped"
        return "full"

    def _save(self, run: TrainingRun) -> None:
        run.save(self.folder.checkpoint_path)
        self.runner.on_checkpoint(self.assignment)

    def _evaluate(self, run: TrainingRun, rung: int) -> RungValue:
        """The rung's value, from the first examples of the validation set, or at the last rung
        from all of them. Raises NotANumber if the metric is not finite.
        """
        is_last = rung == len(run.rung_steps) - 1
        metric, budget, task = self.bench.task.metric, self.runner.budget, self.bench.task
        limit = None if is_last else budget.rung_examples
        evaluation = self._evaluation(run, limit, predict=metric.of != "loss")
        compared = evaluation.pair(metric, task.validation.targets)
        value = metric.value(*compared)
        if not math.isfinite(value):
            raise NotANumber(f"{metric.name} became {value} at step {run.step}")
        if is_last:  # before the value is recorded: a trial with one is not evaluated again
            self.folder.write_samples(example_predictions(task, evaluation))
            statistics = metric.per_example.of(*compared)
            write_examples(self.folder.examples_path, Examples(metric.name, statistics))
        return RungValue(
            rung=rung,
            step=run.step,
            fraction=budget.rungs[rung],
            metric=value,
            metric_se=metric.standard_error(*compared),
            loss=evaluation.loss,
            train_loss=run.smoothed_loss,
            examples=evaluation.examples,
            wall_s=round(run.wall_s, 3),
            cpu_s=round(run.cpu_s, 3),
            eval_s=round(run.eval_s, 3),
            low_precision=run.low_precision.evaluated_in(run.step),
        )

    def _evaluation(self, run: TrainingRun, limit: int | None, predict: bool) -> Evaluation:
        """Losses and predictions; a second try if memory did not suffice and some can be freed."""
        try:
            return run.evaluate(self.bench.validation, limit, predict)
        except OutOfMemory:
            if not self.runner.make_room():
                raise
        # Outside `except`: the exception's traceback holds the tensors of the failed evaluation.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return run.evaluate(self.bench.validation, limit, predict)

    def _ended(self, run: TrainingRun, state: EndState) -> TrialResult:
        curve = self.folder.read_curve()
        if state == "full":
            run.save_adapter(self.folder.adapter_path)
        return ended_result(self.assignment, self.bench, run, curve, state)

    def _failed(self, failure: TrialFailure, run: TrainingRun | None = None) -> TrialResult:
        self.folder.log(f"{failure.cause}: {failure}")
        curve, seed = self.folder.read_curve(), self.runner.seed
        return failed_result(self.assignment, self.bench, seed, curve, failure, run)
