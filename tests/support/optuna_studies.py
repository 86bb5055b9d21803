"""Trials of Optuna's own studies, for samplers to be compared with."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

__all__ = ["end"]


def end(study: optuna.Study, trial: optuna.Trial, worst: float) -> None:
    """In one of the ways that trials end, with values that are a function of the parameters."""
    number = trial.number
    if number % 7 == 3:
        study.tell(number, state=TrialState.FAIL)
    elif number % 5 == 4:
        trial.set_constraint("budget", 0.1 * number)
        study.tell(number, (worst, 20.0))
    else:
        cost = float(trial.params.get("tuned_pct", 0.1))
        trial.set_user_attr("tuned_pct", cost)
        trial.set_user_attr("rung", number % 2)
        study.tell(number, (len(str(trial.params)) / 1000 + cost / 100, cost))
