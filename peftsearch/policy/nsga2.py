"""NSGA-II: children of the least dominated trials (Deb et al. 2002), by Optuna's sampler.

Parents exchange only parameters that every trial has, since the others depend on the structure: on
BERT, a sample of `unified` has 25 parameters on average, of which 5 are in every sample. The others
are drawn at random.
"""

from __future__ import annotations

from dataclasses import replace

import optuna
from optuna.trial import TrialState

from peftsearch.policy.history import History, PastTrial
from peftsearch.policy.mirror import Mirror, MirrorSuggestions, stream
from peftsearch.policy.policy import Setting
from peftsearch.policy.sampling import SamplingPolicy
from peftsearch.space.file.values import Suggester

__all__ = ["Nsga2Policy", "make_sampler"]

POPULATION = 20
"""Trials of a generation; the first is random. Optuna's 50 is more than many searches train."""


class Nsga2Policy(SamplingPolicy):
    proposed = "proposed by NSGA-II"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        dearest_pct = setting.space.file.budgets.tuned_pct.high
        self._mirror = _Generations(make_sampler(setting.seed, setting.worker), dearest_pct)

    def suggestions(self, history: History) -> Suggester:
        return MirrorSuggestions(self._mirror, history)


def make_sampler(seed: int, worker: int = 0) -> optuna.samplers.NSGAIISampler:
    return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=stream(seed, worker))


class _Generations(Mirror):
    """A mirror whose trials have the numbers of their generations.

    Optuna's sampler numbers only the trials that it proposed itself, and ignores the others: those
    of other workers, of an earlier run of the search, and the published methods.
    """

    def __init__(self, sampler: optuna.samplers.NSGAIISampler, dearest_pct: float) -> None:
        super().__init__(sampler, dearest_pct)
        self._sampler = sampler

    def _add(self, past: PastTrial, history: History) -> int:
        begun = replace(past, state="running")
        trial_id = super()._add(begun, history)  # Optuna changes no trial that has ended
        self._sampler.get_trial_generation(self._study, self._storage.get_trial(trial_id))
        if past.has_ended:
            self._update(trial_id, begun, past, history)
        return trial_id

    def _outcome(
        self, past: PastTrial, history: History
    ) -> tuple[TrialState, tuple[float, float] | None]:
        if past.has_ended and not past.parameters:
            # A method outside the space. As complete, it would leave no parameter that all have.
            return TrialState.FAIL, None
        return super()._outcome(past, history)
