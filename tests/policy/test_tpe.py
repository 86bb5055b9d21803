"""Samplers of every seed that a user may give."""

from __future__ import annotations

import optuna
import pytest

from peftsearch.policy.tpe import make_sampler

pytestmark = pytest.mark.internals


@pytest.mark.parametrize("seed", [0, 5_000_000, 2**32, 2**63])
def test_every_seed_makes_a_sampler(seed: int) -> None:
    study = optuna.create_study(sampler=make_sampler(seed, worker=3), directions=["maximize"] * 2)
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=1)
    assert 0 <= study.trials[0].params["x"] <= 1
