"""A copy of a history as an in-memory Optuna study, from which Optuna's samplers propose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial

from peftsearch.policy.history import History, PastTrial
from peftsearch.space.file.values import Values

__all__ = ["Mirror", "MirrorSuggestions", "stream"]

_NAME = "mirror"
_BUDGET = "budget"
"""The constraint that infeasible trials violate."""


def stream(seed: int, worker: int) -> int:
    """Seed of a worker's own random stream, as NumPy takes it."""
    return (seed * 1009 + worker) % 2**32


class Mirror:
    """An Optuna study with two objectives: the metric (higher is better) and tuned %.

    `dearest_pct`: the upper bound of the space's budgets, the cost of infeasible trials.
    """

    def __init__(self, sampler: optuna.samplers.BaseSampler, dearest_pct: float) -> None:
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(
            study_name=_NAME,
            storage=self._storage,
            sampler=sampler,
            directions=["maximize", "minimize"],
        )
        self._study_id = self._storage.get_study_id_from_name(_NAME)
        self._dearest_pct = dearest_pct
        self._mirrored: list[tuple[int, PastTrial]] = []
        """Optuna's id and the content of each trial, as in the history so far."""
        self._draft: optuna.Trial | None = None

    def ask(self, history: History) -> optuna.Trial:
        """A trial with the sampler's suggestions, given the history.

        It is a draft: the real trial appears in a later history, perhaps after those of other
        workers. The draft itself is then marked failed, which samplers ignore.
        """
        if self._draft is not None:
            self._study.tell(self._draft, state=TrialState.FAIL)
        self._follow(history)
        self._draft = self._study.ask()
        return self._draft

    def _follow(self, history: History) -> None:
        """Add what is new in the history, in its order: TPE weighs trials by their age."""
        for index, past in enumerate(history.trials):
            if index == len(self._mirrored):
                self._mirrored.append((self._add(past, history), past))
                continue
            trial_id, before = self._mirrored[index]
            if past is not before and not before.has_ended:
                self._update(trial_id, before, past, history)
                self._mirrored[index] = (trial_id, past)

    def _add(self, past: PastTrial, history: History) -> int:
        state, values = self._outcome(past, history)
        trial = create_trial(
            state=state,
            values=values,
            params=dict(past.parameters),
            distributions={name: _distribution(one) for name, one in past.ranges.items()},
            constraints={_BUDGET: past.excess} if past.state == "infeasible" else None,
            system_attrs=self._drawn(past),
        )
        return self._storage.create_new_trial(self._study_id, trial)

    def _drawn(self, past: PastTrial) -> dict[str, Any]:
        """The sampler's attributes of the draft that became this trial. TPE draws the parameters of
        every group at once, and counts a running trial with all of them, used or not.
        """
        if self._draft is None or past.parameters != self._draft.params:
            return {}
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(
            self._study_id, self._draft.number
        )
        return self._storage.get_trial(trial_id).system_attrs

    def _update(self, trial_id: int, before: PastTrial, past: PastTrial, history: History) -> None:
        for name in past.parameters.keys() - before.parameters.keys():
            distribution = _distribution(past.ranges[name])
            value = distribution.to_internal_repr(past.parameters[name])
            self._storage.set_trial_param(trial_id, name, value, distribution)
        if past.has_ended:
            if past.state == "infeasible":
                optuna.Trial(self._study, trial_id).set_constraint(_BUDGET, past.excess)
            self._storage.set_trial_state_values(trial_id, *self._outcome(past, history))

    def _outcome(
        self, past: PastTrial, history: History
    ) -> tuple[TrialState, tuple[float, float] | None]:
        if not past.has_ended:
            return TrialState.RUNNING, None
        if past.state == "infeasible":
            return TrialState.COMPLETE, (history.worst, self._dearest_pct)
        if past.metric is None or past.tuned_pct is None:
            return TrialState.FAIL, None
        # A stopped trial is complete with its last metric: PRUNED blinds two-objective TPE.
        return TrialState.COMPLETE, (past.metric, past.tuned_pct)


@dataclass(frozen=True)
class MirrorSuggestions:
    """A sampler's suggestions, computed at the first call, outside the study's lock."""

    mirror: Mirror
    history: History

    @cached_property
    def trial(self) -> optuna.Trial:
        return self.mirror.ask(self.history)

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return self.trial.suggest_categorical(name, choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.trial.suggest_float(name, low, high, log=log)


def _distribution(values: Values) -> BaseDistribution:
    if values.is_range:
        return FloatDistribution(values.low, values.high, log=values.log)
    return CategoricalDistribution(values.choices)
