"""Estimating the duration of trials: a few steps of a few random configurations are measured, and
the predicted costs of others are scaled to them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from peftsearch.design.configuration import Configuration
from peftsearch.design.cost.trial import Workload, scale_of, trial_cost
from peftsearch.errors import TrialFailure
from peftsearch.records.records import TrialResult
from peftsearch.space.predicted_time import PredictedTime, predicted_time
from peftsearch.space.random_samples import draw_samples
from peftsearch.study.create import PlannedStudy
from peftsearch.study.settings import budget_of
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun
from peftsearch.training.optimisations import Optimisations

__all__ = ["TrialTime", "parallel_trials", "trial_time", "trials_within"]

_CONFIGURATIONS = 3
_STEPS = 6
"""Most steps measured for each configuration, after a first one that allocates memory."""
_ENOUGH_S = 2.0
"""Seconds after which measuring a configuration's steps ends."""
_EVALUATED = (64, 512)
"""Examples of the measured evaluation; the larger number if the smaller takes too little time."""
_ORDER = 500
"""Maximum number of batches to compute the mean batch from."""


@dataclass(frozen=True)
class TrialTime:
    """Seconds per trial on an otherwise idle machine, one value per measured configuration, and
    predictions for others. States of frozen layers are not cached while measuring.
    """

    full_s: tuple[float, ...]
    """Seconds to full length, with every evaluation on the way."""
    first_rung_s: tuple[float, ...]
    """Seconds to the first rung; equal to `full_s` where there is no rung below full length."""
    steps: int
    """Steps of a trial of full length."""
    predicted: PredictedTime | None = None
    """Random samples of the space, frozen layers computed once if the study caches them."""

    @property
    def mean_s(self) -> float:
        """Mean seconds to full length."""
        return sum(self.full_s) / len(self.full_s)

    @property
    def stopped_s(self) -> float:
        """Mean seconds to the first rung."""
        return sum(self.first_rung_s) / len(self.first_rung_s)


@dataclass(frozen=True)
class _Measured:
    """One configuration: seconds to full length and to the first rung, and its workload."""

    configuration: Configuration
    full_s: float
    first_rung_s: float
    workload: Workload


def trial_time(study: PlannedStudy, recorded: Sequence[TrialResult] = ()) -> TrialTime | None:
    """The estimate, from a few configurations that train something; None if the space has none, or
    each of them fails. Predictions are scaled to the trials of full length among `recorded`, if
    there are any, else to what is measured.
    """
    measured = []
    for configuration in _drawn(study):
        with contextlib.suppress(TrialFailure):  # as a search would
            measured.append(_time_of(study, configuration))
    if not measured:
        return None
    workload = measured[0].workload
    shapes = study.bench.backbone.shapes
    scale = _recorded_scale(study, workload, recorded) or scale_of(
        [trial_cost(m.configuration, shapes, m.workload.without_kept()).total for m in measured],
        [m.full_s for m in measured],
    )
    return TrialTime(
        tuple(m.full_s for m in measured),
        tuple(m.first_rung_s for m in measured),
        max(m.workload.steps for m in measured),
        predicted_time(draw_samples(study.space.on(shapes)), workload, scale),
    )


def _recorded_scale(
    study: PlannedStudy, workload: Workload, recorded: Sequence[TrialResult]
) -> float | None:
    """Seconds per multiply-add of trials that trained something to full length; None without."""
    shapes = study.bench.backbone.shapes
    costs, seconds = [], []
    for result in recorded:
        if result.state == "full" and result.configuration is not None:
            configuration = Configuration.from_json(result.configuration).within(shapes)
            load = workload if result.kept_layers else workload.without_kept()
            if configuration.modifications:
                costs.append(trial_cost(configuration, shapes, load).total)
                seconds.append(result.wall_s)
    return scale_of(costs, seconds) if costs else None


def parallel_trials(device: str, workers: int, threads: int, cores: int) -> float:
    """Trials that run at the speed of one alone: on a CPU limited by its cores."""
    return float(workers) if device != "cpu" else min(workers, max(cores / threads, 1.0))


def trials_within(seconds: float, each_s: float, parallel: float) -> int:
    """Number of trials that end within `seconds`."""
    return math.floor(seconds * parallel / each_s)


def _drawn(study: PlannedStudy) -> list[Configuration]:
    """Random configurations of the space, each with something to train."""
    shapes = study.bench.backbone.shapes
    found = draw_samples(study.space.on(shapes), study.info.seed).configurations
    training = (c for c in found if c.modifications)
    return [c for c, _ in zip(training, range(_CONFIGURATIONS), strict=False)]


def _time_of(study: PlannedStudy, configuration: Configuration) -> _Measured:
    """Seconds of one configuration, extrapolated from some of its steps."""
    bench = study.bench.for_training(configuration.training)
    budget = budget_of(study.space, study.info)
    # Cached states, and recordings, come from trials before: the estimate is of one by itself.
    known = {*study.info.without, "activations", "features", "graphs"}
    with TrainingRun(
        *(bench.backbone, bench.train, bench.objective, configuration, budget, study.info.seed),
        optimisations=Optimisations().without(*known),
        low_rungs=study.info.low_rungs,
    ) as run:
        step_s = _step_s(run)
        example_s = _example_s(run, bench)
        workload = _workload(run, bench, budget.rung_examples, study.info.without)
    examples = len(bench.validation)
    below = min(budget.rung_examples, examples) * example_s
    last = examples * example_s
    full_s = run.full_steps * step_s + (len(run.rungs) - 1) * below + last
    first_step = run.rungs[0][1]
    stopped_s = first_step * step_s + (below if len(run.rungs) > 1 else last)
    return _Measured(configuration, full_s, stopped_s, workload)


def _workload(
    run: TrainingRun, bench: Workbench, rung_examples: int, without: Sequence[str]
) -> Workload:
    """The workload of a trial of full length."""
    batch = mean(len(run.order.batch(step)) for step in range(min(run.order.per_epoch, _ORDER)))
    written = bench.train.written
    target = float(written.lengths.mean()) if written is not None else 0.0
    examples = len(bench.validation)
    return Workload(
        steps=run.full_steps,
        batch=batch,
        tokens=_mean_padded(run) / batch - target,
        evaluated=examples + (len(run.rungs) - 1) * min(rung_examples, examples),
        evaluated_tokens=float(bench.validation.inputs.lengths.mean()),
        target_tokens=target,
        passes=max(1.0, run.full_steps / run.order.per_epoch),
        kept="activations" not in without,
    )


def _step_s(run: TrainingRun) -> float:
    """Seconds of a mean step, taken to be proportional to the padded tokens of its batch."""
    run.train_to(1)
    began, end = run.wall_s, min(run.full_steps, 1 + _STEPS)
    while run.step < end and (run.step == 1 or run.wall_s - began < _ENOUGH_S):
        run.train_to(run.step + 1)
    if run.step == 1:  # a trial of one step: there is no other to measure
        return run.wall_s
    tokens = sum(_padded(run, step) for step in range(1, run.step))
    return (run.wall_s - began) * _mean_padded(run) / max(tokens, 1)


def _padded(run: TrainingRun, step: int) -> int:
    """Padded tokens of a step's batch."""
    batch = run.order.batch(step)
    return int(run.order.lengths[batch].max(initial=1)) * len(batch)


def _mean_padded(run: TrainingRun) -> float:
    """Mean padded tokens of a batch of the first epoch."""
    steps = range(min(run.order.per_epoch, _ORDER))
    return float(np.mean([_padded(run, step) for step in steps]))


def _example_s(run: TrainingRun, bench: Workbench) -> float:
    """Seconds of evaluating one example, including predictions and metric."""
    metric, targets = bench.task.metric, bench.task.validation.targets
    for count in _counts(len(bench.validation)):
        before = run.wall_s
        evaluation = run.evaluate(bench.validation, count, metric.of != "loss")
        metric.value(*evaluation.pair(metric, targets))
        taken = run.wall_s - before
        if taken > _ENOUGH_S / 10:
            break
    return taken / count


def _counts(examples: int) -> Iterator[int]:
    yield from sorted({min(count, examples) for count in _EVALUATED})
