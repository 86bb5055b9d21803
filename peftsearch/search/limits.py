"""When a search ends, what its workers have to work with, and how they are called."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass

__all__ = ["Limits", "Means", "crew_name", "worker_name"]

GRACE = 0.1
"""Share of the time limit that trials in flight may run over it before they are interrupted."""


@dataclass(frozen=True)
class Limits:
    """When a search ends: evaluated configurations in the study, or seconds of this search.

    `waits`: a worker with nothing to do stays while others train, to go on for one that dies.
    """

    trials: int | None = None
    seconds: float | None = None
    waits: bool = False

    def deadline(self, began: float) -> float:
        return float("inf") if self.seconds is None else began + self.seconds

    def last_call(self, began: float) -> float:
        """When trials still in flight are interrupted."""
        grace = 0.0 if self.seconds is None else max(GRACE * self.seconds, 5.0)
        return self.deadline(began) + grace


@dataclass(frozen=True)
class Means:
    """What each worker has to work with."""

    threads: int = 1
    cohort: int | None = None
    """Configurations trained at once; None: as many as pay (`training/cohort/size.py`)."""
    device: str | None = None
    """None: the study's."""
    crew: str | None = None
    """Begins the names of this search's workers (`worker_name`); None: each makes up its own."""
    policy: str | None = None
    """Decides what runs next: a row of `policy/table.py`; None: the default."""


def crew_name() -> str:
    """A name for the workers of one command, unique among all machines."""
    host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:32]
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def worker_name(crew: str, worker: int) -> str:
    return f"{crew}.{worker}"
