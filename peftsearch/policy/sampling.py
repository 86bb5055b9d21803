"""The base of policies that sample: landmarks, suggestions for all other trials, early stopping."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from peftsearch.policy.decisions import Begin, Continue, Decision, Verdict
from peftsearch.policy.history import History
from peftsearch.policy.landmarks import landmarks_of
from peftsearch.policy.policy import Policy, PolicyContext
from peftsearch.policy.stopping import verdict
from peftsearch.space.file.values import Suggester

__all__ = ["SamplingPolicy"]


class SamplingPolicy(Policy):
    """Continues waiting trials first, by number. A new trial is a landmark whenever one is due; the
    others have the parameters that `suggestions` returns. At rungs, `stopping.py` decides.
    """

    proposed: ClassVar[str] = "proposed by the sampler"
    """The reason of a Begin with these suggestions: `proposed by TPE`."""

    def __init__(self, context: PolicyContext) -> None:
        self.landmarks = landmarks_of(context.landmarks, context.space, context.shapes)

    @abstractmethod
    def suggestions(self, history: History) -> Suggester:
        """The source of a new trial's parameters. Called while the study's lock is held; the
        suggestions themselves are called for without it, so these may be slow.
        """

    def next(self, history: History) -> Decision:
        waiting = history.first_waiting
        if waiting is not None:
            return Continue(waiting.number, "was waiting")
        due = self.landmarks.due(history)
        if due is None:
            return Begin(self.suggestions(history), self.proposed)
        proposal = due.configuration if due.params is None else due.params
        return Begin(proposal, "a published method", due.label, due.method)

    def after_rung(self, history: History, number: int, rung: int) -> Verdict:
        return verdict(history, number, rung)
