"""NSGA-II: children of the least dominated trials (Deb et al. 2002), by Optuna's sampler.

Parents exchange only parameters that every trial has, since the others depend on the structure: on
BERT, a sample of `unified` has 14 parameters on average, of which 4 are in every sample. The others
are drawn at random.
"""

from __future__ import annotations

from dataclasses import replace

import optuna
from optuna.trial import TrialState

from peftsearch.policy.history import History, TrialRecord
from peftsearch.policy.in_memory_study import InMemoryStudy, StudySuggestions, stream
from peftsearch.policy.policy import PolicyContext
from peftsearch.policy.sampling import SamplingPolicy
from peftsearch.space.file.values import Suggester

__all__ = ["Nsga2Policy", "make_sampler"]

POPULATION = 20
"""Trials of a generation; the first is random. Optuna's 50 is more than many searches train."""


class Nsga2Policy(SamplingPolicy):
    proposed = "proposed by NSGA-II"

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        max_tuned_pct = context.space.file.budgets.tuned_pct.high
        self._study = _Generations(make_sampler(context.seed, context.worker), max_tuned_pct)

    def suggestions(self, history: History) -> Suggester:
        return StudySuggestions(self._study, history)


def make_sampler(seed: int, worker: int = 0) -> optuna.samplers.NSGAIISampler:
    return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=stream(seed, worker))


class _Generations(InMemoryStudy):
    """A study whose trials have the numbers of their generations.

    Optuna's sampler numbers only the trials that it proposed itself, and ignores the others: those
    of other workers, of an earlier run of the search, and the published methods.
    """

    def __init__(self, sampler: optuna.samplers.NSGAIISampler, max_tuned_pct: float) -> None:
        super().__init__(sampler, max_tuned_pct)
        self._sampler = sampler

    def _add(self, record: TrialRecord, history: History) -> int:
        begun = replace(record, state="running")
        trial_id = super()._add(begun, history)  # Optuna changes no trial that has ended
        self._sampler.get_trial_generation(self._study, self._storage.get_trial(trial_id))
        if record.has_ended:
            self._update(trial_id, begun, record, history)
        return trial_id

    def _outcome(
        self, record: TrialRecord, history: History
    ) -> tuple[TrialState, tuple[float, float] | None]:
        if record.has_ended and not record.parameters:
            # A method outside the space. As complete, it would leave no parameter that all have.
            return TrialState.FAIL, None
        return super()._outcome(record, history)
