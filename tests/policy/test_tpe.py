"""TPE behind the interface of a policy proposes what Optuna's own study would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from peftsearch.policy.decisions import Begin, Continue
from peftsearch.policy.history import History, TrialRecord
from peftsearch.policy.policy import PolicyContext
from peftsearch.policy.tpe import STARTUP_TRIALS, TpePolicy, make_sampler
from peftsearch.space.decode import decode
from peftsearch.study.history import HistoryBuilder
from support.optuna_studies import end
from support.standin import SPACE, create, open_study

RUNGS = (0.5, 1.0)

pytestmark = pytest.mark.internals


@pytest.mark.parametrize("seed", [0, 5_000_000, 2**32, 2**63])
def test_every_seed_makes_a_sampler(seed: int) -> None:
    study = optuna.create_study(sampler=make_sampler(seed, worker=3), directions=["maximize"] * 2)
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=1)
    assert 0 <= study.trials[0].params["x"] <= 1


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_proposals_are_those_of_optunas_own_study_with_trials_in_flight(
    direction: str, tmp_path: Path, tiny_bert: Path
) -> None:
    """Three trials at once, which end out of order; a metric of either direction."""
    folder = create(tiny_bert, tmp_path, SPACE.replace("seed_with", "# seed_with"))
    opened = open_study(folder)
    space, shapes = opened.space, opened.shapes
    scale = opened.info.metric.model_copy(update={"maximise": direction == "maximize"})
    builder = HistoryBuilder(opened.info.model_copy(update={"metric": scale}), folder, False)
    policy = TpePolicy(PolicyContext(space, shapes, seed=5, worker=1))
    study = optuna.create_study(sampler=make_sampler(5, 1), directions=[direction, "minimize"])
    running: list[optuna.Trial] = []
    for _ in range(STARTUP_TRIALS + 20):
        history = builder.build(study.get_trials(deepcopy=False))
        trial = study.ask()
        theirs = decode(space.on(shapes), trial)
        begin = policy.next(history)
        assert isinstance(begin, Begin)
        assert decode(space.on(shapes), begin.proposal) == theirs  # type: ignore[arg-type]
        running.append(trial)
        if len(running) == 3:
            end(study, running.pop(trial.number % 3), scale.worst)
    states = {record.state for record in builder.build(study.get_trials()).trials}
    assert states == {"running", "full", "stopped", "failed", "infeasible"}


def record(number: int, state: Any = "full", **more: Any) -> TrialRecord:
    return TrialRecord(number, state, hash=str(number), tuned_pct=1.0, metric=0.5, **more)


@pytest.fixture
def policy(tmp_path: Path, tiny_bert: Path) -> TpePolicy:
    study = open_study(create(tiny_bert, tmp_path))
    return TpePolicy(PolicyContext(study.space, study.shapes))


def begun(policy: TpePolicy, *trials: TrialRecord) -> str | None:
    """Label of the seed that is begun after these trials; None: TPE proposes."""
    decision = policy.next(History(trials, RUNGS))
    assert isinstance(decision, Begin)
    return decision.seed


def test_every_second_trial_is_a_seed(policy: TpePolicy) -> None:
    assert begun(policy) == "head-only-mean"
    first = record(0, seed="head-only-mean")
    assert begun(policy, first) is None
    assert begun(policy, first, record(1)) == "lora"
    seeds = (record(n, seed=one.label) for n, one in enumerate(policy.landmarks.others))
    assert begun(policy, *seeds) is None


def test_a_seed_that_was_cut_off_before_it_was_written_down_is_due_again(policy: TpePolicy) -> None:
    lost = TrialRecord(0, "failed", seed="head-only-mean")
    assert begun(policy, lost) == "head-only-mean"
    assert begun(policy, TrialRecord(0, "running", seed="head-only-mean")) is None
    assert begun(policy, record(0, "failed", seed="head-only-mean"), record(1)) == "lora"


def test_what_is_enqueued_comes_before_a_seed(policy: TpePolicy) -> None:
    assert begun(policy, TrialRecord(0, "queued")) is None


def test_the_first_waiting_trial_goes_on_before_anything_begins(policy: TpePolicy) -> None:
    trials = (record(0), record(1, "waiting"), record(2, "waiting"))
    assert policy.next(History(trials, RUNGS)) == Continue(1, "was waiting")
