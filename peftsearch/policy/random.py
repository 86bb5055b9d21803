"""Random search: samples the space uniformly; a baseline for other policies."""

from __future__ import annotations

from peftsearch.policy.history import History
from peftsearch.policy.policy import PolicyContext
from peftsearch.policy.sampling import SamplingPolicy
from peftsearch.space.file.values import Suggester
from peftsearch.space.random_samples import RandomSuggestions

__all__ = ["RandomPolicy"]


class RandomPolicy(SamplingPolicy):
    """Trial n of a study is a random sample that depends on the study's seed and n alone: any
    number of workers, interrupted or not, draw the same samples.
    """

    proposed = "drawn uniformly at random"

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._seed = context.study_seed

    def suggestions(self, history: History) -> Suggester:
        return RandomSuggestions(f"{self._seed} {len(history.trials)}")
