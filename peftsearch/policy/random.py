"""Random search: samples the space uniformly and stops no trial; a baseline for other policies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Any

from peftsearch.policy.decisions import Begin, Continue, Decision
from peftsearch.policy.history import History
from peftsearch.policy.policy import Policy, PolicyContext

__all__ = ["RandomPolicy", "RandomSuggestions"]


@dataclass(frozen=True)
class RandomSuggestions:
    """Suggests values uniformly at random, log-uniformly for a log range."""

    source: Random

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return self.source.choice(choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if not log:
            return self.source.uniform(low, high)
        drawn = math.exp(self.source.uniform(math.log(low), math.log(high)))
        return min(max(drawn, low), high)  # exp(log(x)) may miss x by a rounding


class RandomPolicy(Policy):
    def __init__(self, context: PolicyContext) -> None:
        self._suggestions = RandomSuggestions(Random(f"{context.seed} {context.worker}"))

    def next(self, history: History) -> Decision:
        waiting = history.first_waiting
        if waiting is not None:
            return Continue(waiting.number, "was waiting")
        return Begin(self._suggestions, "drawn uniformly at random")
