"""Estimates of a trial's seconds: against sums by hand, with a run whose clock is its work."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.design.configuration import Training
from peftsearch.design.cost.trial import Workload, trial_cost
from peftsearch.design.methods import METHODS
from peftsearch.training.batches import BatchOrder
from peftsearch.workers.estimate import (
    TrialTime,
    _example_s,
    _recorded_scale,
    _step_s,
    _workload,
    parallel_trials,
    trials_within,
)

TOKEN_S, EXAMPLE_S = 0.002, 0.05


@dataclass
class Run:
    """A training run in which a padded token takes `TOKEN_S` and an evaluated example
    `EXAMPLE_S`; the first step takes ten seconds more.
    """

    order: BatchOrder
    full_steps: int
    step: int = 0
    wall_s: float = 0.0
    evaluated: list[int] = field(default_factory=list)

    def train_to(self, step: int) -> None:
        while self.step < step:
            batch = self.order.batch(self.step)
            self.wall_s += TOKEN_S * max(self.order.lengths[batch]) * len(batch)
            self.wall_s += 10.0 if self.step == 0 else 0.0
            self.step += 1

    def evaluate(self, data: Any, count: int, predict: bool) -> Any:
        self.wall_s += EXAMPLE_S * count
        self.evaluated.append(count)
        return SimpleNamespace(pair=lambda metric, targets: (targets[:count], targets[:count]))


def run_over(lengths: list[int], full_steps: int, batch_size: int = 4) -> Run:
    order = BatchOrder(np.array(lengths), Training(batch_size=batch_size), seed=0)
    return Run(order, full_steps)


def test_a_step_is_in_proportion_to_the_padded_tokens_of_a_mean_batch() -> None:
    lengths = [5] * 40 + [50] * 40  # batches of 20 and of 200 tokens
    run = run_over(lengths, full_steps=100)
    batches = [run.order.batch(step) for step in range(20)]
    by_hand = np.mean([max(run.order.lengths[b]) * len(b) for b in batches]) * TOKEN_S
    assert _step_s(run) == pytest.approx(by_hand)  # type: ignore[arg-type]
    assert run.step < 10


def test_a_slow_model_is_measured_by_one_step_after_the_first() -> None:
    run = run_over([1000] * 40, full_steps=100)  # 8 s a step
    assert _step_s(run) == pytest.approx(8.0)  # type: ignore[arg-type]
    assert run.step == 2


def test_no_more_steps_are_measured_than_a_trial_has() -> None:
    run = run_over([5] * 40, full_steps=1)
    assert _step_s(run) == pytest.approx(10 + 20 * TOKEN_S)  # type: ignore[arg-type]
    assert run.step == 1


@pytest.mark.parametrize(("examples", "evaluated"), [(30, [30]), (4000, [64])])
def test_an_evaluation_is_measured_on_some_examples(examples: int, evaluated: list[int]) -> None:
    run = run_over([5] * 40, full_steps=1)
    validation = SimpleNamespace(targets=np.zeros(examples))
    metric = SimpleNamespace(of="labels", value=lambda one, other: 0.0)
    task = SimpleNamespace(metric=metric, validation=validation)

    class Bench:
        def __init__(self) -> None:
            self.task = task
            self.validation = range(examples)

    assert _example_s(run, Bench()) == pytest.approx(EXAMPLE_S)  # type: ignore[arg-type]
    assert run.evaluated == evaluated


@pytest.mark.parametrize("target", [None, 4])
def test_a_workload_is_what_a_trial_reads(target: int | None) -> None:
    lengths = [10] * 40
    run: Any = run_over(lengths, full_steps=30)
    run.rungs = ((0.5, 15), (1.0, 30))
    written = None if target is None else SimpleNamespace(lengths=np.full(40, target))

    class Validation:
        inputs = SimpleNamespace(lengths=np.array([6, 8]))

        def __len__(self) -> int:
            return 100

    bench: Any = SimpleNamespace(train=SimpleNamespace(written=written), validation=Validation())
    load = _workload(run, bench, rung_examples=30, without=("features",))
    own = 10 - (target or 0)  # the lengths of a batch hold its targets
    assert load == Workload(30, 4, own, 130, 7, target or 0, passes=3, kept=True)
    assert not _workload(run, bench, 30, ("activations",)).kept


def test_predictions_are_scaled_to_the_trials_that_a_study_has_recorded() -> None:
    shapes, load = load_shapes("config:bert-base"), Workload(100, 32, 20, 500, 20)
    study: Any = SimpleNamespace(bench=SimpleNamespace(backbone=SimpleNamespace(shapes=shapes)))

    def ended(name: str, times: float, state: str = "full", kept: int = 0) -> Any:
        configuration = METHODS[name].configuration()
        cost = trial_cost(
            configuration.within(shapes), shapes, load if kept else load.without_kept()
        )
        return SimpleNamespace(
            state=state,
            configuration=configuration.to_json(),
            kept_layers=kept,
            wall_s=cost.total * 1e-9 * times,
        )

    trials = [ended("lora", 1), ended("mam", 1), ended("bitfit", 50)]
    trials += [ended("lora", 9, "stopped"), ended("head-only-mean", 9)]
    assert _recorded_scale(study, load, trials) == pytest.approx(1e-9)
    assert _recorded_scale(study, load, trials[3:]) is None


def test_trials_that_share_cores_are_as_many_as_there_is_room_for() -> None:
    assert parallel_trials("cpu", workers=2, threads=1, cores=2) == 2
    assert parallel_trials("cpu", workers=8, threads=1, cores=2) == 2
    assert parallel_trials("cpu", workers=4, threads=2, cores=4) == 2
    assert parallel_trials("cpu", workers=1, threads=8, cores=2) == 1
    assert parallel_trials("cuda", workers=8, threads=4, cores=8) == 8


def test_trials_are_counted_that_end_in_time() -> None:
    # 6 minutes, 2 workers, 40 s each: 9 one after the other, twice.
    assert trials_within(360, 40, 2) == 18
    assert trials_within(39, 40, 1) == 0
    time = TrialTime((30.0, 50.0), (10.0, 20.0), steps=7)
    assert (time.mean_s, time.stopped_s) == (40, 15)
