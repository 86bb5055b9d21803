"""Events: immutable messages from workers to the process that shows progress, sent by pickle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peftsearch.records.records import RungValue, TrialResult

__all__ = [
    *(
        "Event",
        "Phase",
        "StopRequested",
        "TrialProgress",
        "TrialBegan",
        "TrialEnded",
        "TrialEvaluated",
    ),
    *("TrialRequeued", "WorkerPlaced", "WorkerReady", "WorkerStopped", "WorkersPending"),
]


@dataclass(frozen=True)
class WorkersPending:
    """Number of workers not yet placed in the cluster, and the `resources` that each needs."""

    workers: int
    resources: str


@dataclass(frozen=True)
class WorkerPlaced:
    """A cluster has given a worker a place on `node`."""

    worker: int
    node: str


@dataclass(frozen=True)
class StopRequested:
    """Ctrl-C or a signal was received for the `times`-th time."""

    times: int


@dataclass(frozen=True)
class WorkerReady:
    """A worker has loaded model and data."""

    worker: int


@dataclass(frozen=True)
class TrialBegan:
    """A worker has begun a trial."""

    worker: int
    number: int
    description: str
    method: str | None = None


Phase = Literal["trains", "prepares", "evaluates"]


@dataclass(frozen=True)
class TrialProgress:
    """Progress of a trial, sent about once a second. Phase: it trains, `prepares` (computes states
    of frozen layers before its first step), or `evaluates`.
    """

    worker: int
    number: int
    step: int
    full_steps: int
    loss: float | None = None
    phase: Phase = "trains"


@dataclass(frozen=True)
class TrialEvaluated:
    """A trial was evaluated at a rung; `decision`: the reason why it continues or ends."""

    worker: int
    number: int
    value: RungValue
    decision: str


@dataclass(frozen=True)
class TrialEnded:
    """A trial ended with a result, or needed no training."""

    worker: int
    result: TrialResult


@dataclass(frozen=True)
class TrialRequeued:
    """A trial was interrupted and saved, for this or a later search to continue."""

    worker: int
    number: int


@dataclass(frozen=True)
class WorkerStopped:
    """A worker ended; `error` is the error message, if it failed."""

    worker: int
    error: str | None = None
    exit_code: int = 0


Event = (
    WorkersPending
    | WorkerPlaced
    | WorkerReady
    | StopRequested
    | TrialBegan
    | TrialProgress
    | TrialEvaluated
    | TrialEnded
    | TrialRequeued
    | WorkerStopped
)
