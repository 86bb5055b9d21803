"""Limits of a search, resources of its workers, and their names."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass

__all__ = ["Limits", "WorkerSettings", "unique_name_prefix", "worker_name"]

GRACE = 0.1
"""Share of the time limit that trials in flight may run over it before they are interrupted."""


@dataclass(frozen=True)
class Limits:
    """The end of a search: evaluated configurations in the study, or seconds of this search.

    `wait_for_others`: an idle worker stays while others train, to take over the trials of one that
    dies.
    """

    trials: int | None = None
    seconds: float | None = None
    wait_for_others: bool = False

    def deadline(self, began: float) -> float:
        return float("inf") if self.seconds is None else began + self.seconds

    def hard_deadline(self, began: float) -> float:
        """The time at which trials still in flight are interrupted."""
        grace = 0.0 if self.seconds is None else max(GRACE * self.seconds, 5.0)
        return self.deadline(began) + grace


@dataclass(frozen=True)
class WorkerSettings:
    """Resources and settings of each worker."""

    threads: int = 1
    cohort: int | None = None
    """Configurations trained at once; None: chosen by speed (`training/cohort/size.py`)."""
    device: str | None = None
    """None: the study's."""
    name_prefix: str | None = None
    """Prefix of the names of this search's workers (`worker_name`); None: a new one for each."""


def unique_name_prefix() -> str:
    """A prefix for the names of one command's workers, unique among all machines."""
    host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:32]
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def worker_name(name_prefix: str, worker: int) -> str:
    return f"{name_prefix}.{worker}"
