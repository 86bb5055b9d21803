"""The base of policies that sample: published methods first, then suggestions; early stopping."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from peftsearch.policy.decisions import Begin, Continue, Decision, Verdict
from peftsearch.policy.history import History
from peftsearch.policy.policy import Policy, Setting
from peftsearch.policy.seeds import due_seed, seeds_of
from peftsearch.policy.stopping import verdict
from peftsearch.space.file.values import Suggester

__all__ = ["SamplingPolicy"]


class SamplingPolicy(Policy):
    """Continues waiting trials first, by number; at most every second new trial is a seed, the
    others have the parameters that `suggestions` returns. At rungs, `stopping.py` decides.
    """

    proposed: ClassVar[str]
    """The reason of a Begin with these suggestions: `proposed by TPE`."""

    def __init__(self, setting: Setting) -> None:
        self.seeds = seeds_of(setting.space, setting.shapes)

    @abstractmethod
    def suggestions(self, history: History) -> Suggester:
        """The source of a new trial's parameters. Called while the study's lock is held; the
        suggestions themselves are called for without it, so these may be slow.
        """

    def next(self, history: History) -> Decision:
        waiting = history.first_waiting
        if waiting is not None:
            return Continue(waiting.number, "was waiting")
        seed = due_seed(self.seeds, history)
        if seed is None:
            return Begin(self.suggestions(history), self.proposed)
        what = seed.configuration if seed.params is None else seed.params
        return Begin(what, "a published method", seed.label, seed.method)

    def after_rung(self, history: History, number: int, rung: int) -> Verdict:
        return verdict(history, number, rung)
