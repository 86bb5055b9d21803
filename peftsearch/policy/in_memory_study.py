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

from peftsearch.policy.history import History, TrialRecord
from peftsearch.space.file.values import Values

__all__ = ["InMemoryStudy", "StudySuggestions", "stream"]

_NAME = "copy"
_BUDGET = "budget"
"""The constraint that infeasible trials violate."""


def stream(seed: int, worker: int) -> int:
    """Seed of a worker's own random stream, as NumPy takes it."""
    return (seed * 1009 + worker) % 2**32


class InMemoryStudy:
    """An Optuna study with two objectives: the metric (higher is better) and tuned %.

    `max_tuned_pct`: the upper bound of the space's budgets, the cost of infeasible trials.
    """

    def __init__(self, sampler: optuna.samplers.BaseSampler, max_tuned_pct: float) -> None:
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(
            study_name=_NAME,
            storage=self._storage,
            sampler=sampler,
            directions=["maximize", "minimize"],
        )
        self._study_id = self._storage.get_study_id_from_name(_NAME)
        self._max_tuned_pct = max_tuned_pct
        self._copied: list[tuple[int, TrialRecord]] = []
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
        for index, record in enumerate(history.trials):
            if index == len(self._copied):
                self._copied.append((self._add(record, history), record))
                continue
            trial_id, before = self._copied[index]
            if record is not before and not before.has_ended:
                self._update(trial_id, before, record, history)
                self._copied[index] = (trial_id, record)

    def _add(self, record: TrialRecord, history: History) -> int:
        state, values = self._outcome(record, history)
        trial = create_trial(
            state=state,
            values=values,
            params=dict(record.parameters),
            distributions={name: _distribution(one) for name, one in record.ranges.items()},
            constraints={_BUDGET: record.excess} if record.state == "infeasible" else None,
            system_attrs=self._drawn(record),
        )
        return self._storage.create_new_trial(self._study_id, trial)

    def _drawn(self, record: TrialRecord) -> dict[str, Any]:
        """The sampler's attributes of the draft that became this trial. TPE draws the parameters of
        every group at once, and counts a running trial with all of them, used or not.
        """
        if self._draft is None or record.parameters != self._draft.params:
            return {}
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(
            self._study_id, self._draft.number
        )
        return self._storage.get_trial(trial_id).system_attrs

    def _update(
        self, trial_id: int, before: TrialRecord, record: TrialRecord, history: History
    ) -> None:
        for name in record.parameters.keys() - before.parameters.keys():
            distribution = _distribution(record.ranges[name])
            value = distribution.to_internal_repr(record.parameters[name])
            self._storage.set_trial_param(trial_id, name, value, distribution)
        if record.has_ended:
            if record.state == "infeasible":
                optuna.Trial(self._study, trial_id).set_constraint(_BUDGET, record.excess)
            self._storage.set_trial_state_values(trial_id, *self._outcome(record, history))

    def _outcome(
        self, record: TrialRecord, history: History
    ) -> tuple[TrialState, tuple[float, float] | None]:
        if not record.has_ended:
            return TrialState.RUNNING, None
        if record.state == "infeasible":
            return TrialState.COMPLETE, (history.worst, self._max_tuned_pct)
        if record.metric is None or record.tuned_pct is None:
            return TrialState.FAIL, None
        # A stopped trial is complete with its last metric: PRUNED blinds two-objective TPE.
        return TrialState.COMPLETE, (record.metric, record.tuned_pct)


@dataclass(frozen=True)
class StudySuggestions:
    """A sampler's suggestions, computed at the first call, outside the study's lock."""

    study: InMemoryStudy
    history: History

    @cached_property
    def trial(self) -> optuna.Trial:
        return self.study.ask(self.history)

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return self.trial.suggest_categorical(name, choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.trial.suggest_float(name, low, high, log=log)


def _distribution(values: Values) -> BaseDistribution:
    if values.is_range:
        return FloatDistribution(values.low, values.high, log=values.log)
    return CategoricalDistribution(values.choices)
