"""What workers tell the one who watches: small immutable values, safe to send between processes."""

from __future__ import annotations

from dataclasses import dataclass

from peftsearch.search.records import RungValue, TrialResult

__all__ = [
    *("Event", "TrialBegan", "TrialEnded", "TrialEvaluated"),
    *("WorkerPlaced", "WorkerReady", "WorkerStopped", "WorkersWait"),
]


@dataclass(frozen=True)
class WorkersWait:
    """So many workers have no place in the cluster yet; `wants` is what one of them needs."""

    workers: int
    wants: str


@dataclass(frozen=True)
class WorkerPlaced:
    """A cluster has given a worker a place on `node`."""

    worker: int
    node: str


@dataclass(frozen=True)
class WorkerReady:
    worker: int


@dataclass(frozen=True)
class TrialBegan:
    worker: int
    number: int
    description: str
    resumed_at_step: int = 0


@dataclass(frozen=True)
class TrialEvaluated:
    worker: int
    number: int
    value: RungValue
    decision: str


@dataclass(frozen=True)
class TrialEnded:
    worker: int
    result: TrialResult


@dataclass(frozen=True)
class WorkerStopped:
    """`error` is the sentence of what ended it, if anything did."""

    worker: int
    error: str | None = None
    exit_code: int = 0


Event = (
    WorkersWait
    | WorkerPlaced
    | WorkerReady
    | TrialBegan
    | TrialEvaluated
    | TrialEnded
    | WorkerStopped
)
