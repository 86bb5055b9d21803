"""The interface of a policy, and its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from peftsearch.design.shapes import BackboneShapes
from peftsearch.policy.decisions import Continue, Decision, Verdict
from peftsearch.policy.history import History
from peftsearch.space.space import Space

__all__ = ["Policy", "PolicyContext"]


@dataclass(frozen=True)
class PolicyContext:
    """The inputs of a policy: a space, a backbone's shapes, and its random streams."""

    space: Space
    shapes: BackboneShapes
    seed: int = 0
    """Random seed; a different one each time a study is resumed."""
    worker: int = 0
    """Number of the worker; each worker has its own policy."""
    landmarks: str = "all"
    """The published methods to train: `policy/landmarks.py`."""
    study_seed: int = 0
    """The study's seed: the same for all workers, and whenever the study is resumed."""


class Policy(ABC):
    """Decides what a worker does next, from the history alone, to which all workers of the study
    contribute, each with its own policy.
    """

    details: ClassVar[bool] = False
    """Whether histories contain configurations, standard errors, losses and seconds, which are read
    once from each trial's files."""

    @abstractmethod
    def next(self, history: History) -> Decision:
        """The decision for an idle worker: Begin, Continue with a waiting trial, or Nothing.

        Called while the study's lock is held, so it should take milliseconds; the suggester of a
        Begin may be slow.
        """

    def after_rung(self, history: History, number: int, rung: int) -> Verdict:
        """Continue, Pause or Stop: the verdict on a trial evaluated at a rung below the last."""
        return Continue(number, "trained to full length")
