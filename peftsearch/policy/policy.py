"""The interface of a policy, and its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from peftsearch.design.shapes import BackboneShapes
from peftsearch.policy.decisions import Continue, Decision, Verdict
from peftsearch.policy.history import History
from peftsearch.space.space import Space

__all__ = ["Policy", "Setting"]


@dataclass(frozen=True)
class Setting:
    """The inputs of a policy: a space, a backbone's shapes, and its own random stream."""

    space: Space
    shapes: BackboneShapes
    seed: int = 0
    """Differs whenever a study is resumed."""
    worker: int = 0
    """Each worker has a policy of its own."""


class Policy(ABC):
    """Decides what a worker does next. Everything it knows of the study is in the history: many
    workers, each with its own policy, write it.
    """

    details: ClassVar[bool] = False
    """Whether its histories hold configurations, standard errors, losses and seconds. They are read
    from every trial's files, once each."""

    @abstractmethod
    def next(self, history: History) -> Decision:
        """The decision for a free worker: Begin, Continue with a trial that waits, or Nothing.

        Asked under the study's lock, so it should take milliseconds; a Begin's suggestions may take
        their time.
        """

    def after_rung(self, history: History, number: int, rung: int) -> Verdict:
        """Continue, Pause or Stop: the verdict on a trial evaluated at a rung below the last."""
        return Continue(number, "trained to full length")
