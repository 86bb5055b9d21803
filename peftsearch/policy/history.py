"""The history of a study as policies see it: frozen records of its trials.

Metrics are negated where lower is better, so that higher is always better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from peftsearch.design.configuration import Configuration
from peftsearch.space.file.values import Values

__all__ = ["History", "Origin", "RungScore", "State", "TrialRecord"]

Origin = Literal["seed", "sampled", "landmark"]
State = Literal[
    "queued", "running", "waiting", "full", "stopped", "failed", "infeasible", "duplicate"
]
"""`queued`: parameters were enqueued but no worker has started them. `waiting`: started, then
killed, interrupted or paused; no worker has it. The others are those of `records.TrialResult`.
"""


@dataclass(frozen=True)
class RungScore:
    """One evaluation of a trial. All but the metric are None unless a policy asks for `details`."""

    rung: int
    """0 is the lowest; the last one is full length."""
    metric: float
    standard_error: float | None = None
    """Standard error of the metric, from the examples that it was measured on."""
    loss: float | None = None
    """Mean evaluation loss, lower is better whatever the metric."""
    seconds: float | None = None
    """Seconds of this trial so far, evaluation included."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial that has begun, or is queued."""

    number: int
    state: State
    origin: Origin | None = None
    """None until a configuration was assigned."""
    seed: str | None = None
    """The label from the policy's Begin."""
    hash: str | None = None
    """Hash of its configuration; None until one was assigned."""
    tuned_pct: float | None = None
    """Exact, in percent of the backbone's body."""
    metric: float | None = None
    """The metric at the last rung reached; set for full and stopped trials and their duplicates."""
    excess: float = 0.0
    """log(lowest possible cost / budget) of an infeasible trial."""
    rungs: tuple[RungScore, ...] = ()
    """By rung."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Its point in the space; a configuration outside it has none."""
    ranges: Mapping[str, Values] = field(default_factory=dict)
    """The choices or range of each parameter."""
    configuration: Configuration | None = None
    """Only for policies that ask for `details`."""

    @property
    def has_ended(self) -> bool:
        return self.state not in ("queued", "running", "waiting")

    @property
    def was_begun(self) -> bool:
        """False if its worker was killed before its configuration was recorded."""
        return self.hash is not None or self.state != "failed"

    def at(self, rung: int) -> RungScore | None:
        """The evaluation at a rung, if it got there."""
        return next((score for score in self.rungs if score.rung == rung), None)


def _format(metric: float) -> str:
    return f"{metric:.3f}"


@dataclass(frozen=True)
class History:
    """All trials of a study, of all its workers, and the metric's scale."""

    trials: tuple[TrialRecord, ...]
    """By number."""
    rungs: tuple[float, ...]
    """Fractions of the full training length."""
    worst: float = 0.0
    """The metric of a constant predictor."""
    may_begin: bool = True
    """Whether the search's limit leaves room for another configuration."""
    format_metric: Callable[[float], str] = _format
    """Formats a metric for a reason: in its own direction, with its decimals."""

    @property
    def last_rung(self) -> int:
        return len(self.rungs) - 1

    @property
    def first_waiting(self) -> TrialRecord | None:
        return next((record for record in self.trials if record.state == "waiting"), None)

    @property
    def has_queued(self) -> bool:
        """Whether parameters are enqueued: the next trial to begin uses them."""
        return any(record.state == "queued" for record in self.trials)

    def with_trial(self, record: TrialRecord) -> History:
        """A copy with one trial replaced by a more recent record of it."""
        before, after = self.trials[: record.number], self.trials[record.number + 1 :]
        return replace(self, trials=(*before, record, *after))
