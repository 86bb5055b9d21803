"""Which sampler proposes configurations."""

from __future__ import annotations

import warnings

import optuna

__all__ = ["make_sampler"]

STARTUP_TRIALS = 10


def make_sampler(seed: int, worker: int = 0) -> optuna.samplers.BaseSampler:
    """Multivariate, grouped TPE: the strongest stock sampler on a conditional space.

    Group decomposition models each set of parameters that occur together on its own. Every worker
    draws from its own stream; trials still running count as bad (`constant_liar`), so that
    workers do not crowd on one point.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=STARTUP_TRIALS,
            seed=(seed * 1009 + worker) % 2**32,
        )
