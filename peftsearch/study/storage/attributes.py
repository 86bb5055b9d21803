"""Attributes of Optuna's trials and of the study: every key, its type, and the order of writing.

A process may be killed, and an outage may begin, between any two writes; recovery concludes from
what is there. So the order matters:

A trial
1. `WORKER`, with `SEED` and `METHOD` of a published method. Without a `HASH` the trial was
   cut off while it was sampled: it fails, and its seed is due again.
2. Optuna's parameters, then `ORIGIN`, `BUDGET_PCT`, `TUNED_PCT`, `CONFIGURATION`.
3. `SAME_AS`, of a duplicate: before the hash, or it would be trained a second time.
4. `HASH`, last: the trial has all that it takes to be trained.
5. At each rung `CURVE`, then `METRIC_AT`, which other trials are compared with. Before or after,
   `CHECKPOINT`: a new file is stored first and named here, then the one before is removed.
6. `REQUEUED`, when its worker has died or was interrupted. Who continues the trial writes `WORKER`
   first, then `REQUEUED` as taken: killed in between, the trial still waits.
7. `ADAPTER` and `EXAMPLES`, then `RESULT`, `LAST_RUNG` and `CAUSE`: with a result the trial is
   finished. Optuna is told last; who finds a result that was not told tells it.

The study, in a database
1. `LOCK` and `SPACE`, then `INFO`, last: only with it the study is known to others.
2. `TRIALS` and each worker's `ALIVE`, at any time.

On one machine `CONFIGURATION`, `CURVE` and `RESULT` are files of the trial's folder, written at the
same points. In a database writes of one block of `TrialTable.transaction` are one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

from peftsearch.records.records import Origin

__all__ = ["Attribute", "AttributeFamily", "Requeued"]

T = TypeVar("T")


@dataclass(frozen=True)
class Attribute(Generic[T]):
    """One attribute: `key` is Optuna's, and its value, a `T`, is stored as JSON."""

    key: str

    def of(self, attributes: Mapping[str, Any]) -> T | None:
        """The value among a trial's or a study's attributes; None if it is not there."""
        value: T | None = attributes.get(self.key)
        return value

    def required(self, attributes: Mapping[str, Any]) -> T:
        """The value among a trial's or a study's attributes; KeyError if it is not there."""
        value: T = attributes[self.key]
        return value

    def is_in(self, attributes: Mapping[str, Any]) -> bool:
        return self.key in attributes


@dataclass(frozen=True)
class AttributeFamily(Generic[T]):
    """Attributes of one meaning, one for each rung or worker: `prefix` begins their keys."""

    prefix: str

    def at(self, which: int | str) -> Attribute[T]:
        """The attribute of one rung or worker."""
        return Attribute(f"{self.prefix}{which}")

    def each(self, attributes: Mapping[str, Any]) -> dict[str, T]:
        """Those that are present, by the rest of their key after the prefix."""
        return {
            key.removeprefix(self.prefix): value
            for key, value in attributes.items()
            if key.startswith(self.prefix)
        }


class Requeued(TypedDict):
    """A trial that was cut off."""

    times: int
    """Cut-offs since its last new checkpoint."""
    stamp: int | str | None
    """`TrialStore.progress` when it was cut off last."""
    taken: bool
    """Whether a worker has continued it since."""


# Of a trial.
WORKER: Attribute[str] = Attribute("worker")
"""The worker that trains it, or did so last."""
SEED: Attribute[str] = Attribute("seed")
"""Label of a method that the search began with: `lora at 0.01 %`."""
METHOD: Attribute[str] = Attribute("method")
"""Name of that method: `lora`."""
ORIGIN: Attribute[Origin] = Attribute("origin")
BUDGET_PCT: Attribute[float | None] = Attribute("budget_pct")
"""The sampled limit on tuned %; None where the structure has no width."""
TUNED_PCT: Attribute[float] = Attribute("tuned_pct")
CONFIGURATION: Attribute[dict[str, Any]] = Attribute("configuration")
"""`Configuration.to_json()`; in a database only."""
SAME_AS: Attribute[int] = Attribute("same_as")
"""Number of the trial that was given the same configuration before."""
HASH: Attribute[str] = Attribute("hash")
"""`Configuration.hash`."""
CURVE: AttributeFamily[dict[str, Any]] = AttributeFamily("curve:")
"""`RungValue` as JSON, by rung; in a database only."""
METRIC_AT: AttributeFamily[float] = AttributeFamily("rung:")
"""The metric, by rung."""
CHECKPOINT: Attribute[str] = Attribute("checkpoint")
"""Name in the artifact store; in a database only."""
REQUEUED: Attribute[Requeued] = Attribute("requeued")
ADAPTER: Attribute[str] = Attribute("adapter")
"""Name of the tuned tensors in the artifact store; in a database only."""
EXAMPLES: Attribute[str] = Attribute("examples")
"""Name of the metric's statistics of examples in the artifact store; in a database only."""
RESULT: Attribute[dict[str, Any]] = Attribute("result")
"""`TrialResult` as JSON; in a database only."""
LAST_RUNG: Attribute[int] = Attribute("rung")
"""The rung that a trial ended at."""
CAUSE: Attribute[str] = Attribute("cause")
"""Why a trial failed."""

# Of a trial, written by Optuna itself.
FIXED_PARAMS: Attribute[dict[str, Any]] = Attribute("fixed_params")
"""Parameters that `enqueue_trial` was given; a system attribute."""
BUDGET_CONSTRAINT = "budget"
"""Name of the constraint that Optuna's sampler learns from: above 0 where nothing fits."""

# Of a study; all but `TRIALS` in a database only.
LOCK: Attribute[bool] = Attribute("lock")
"""Its row is locked while anything is decided."""
SPACE: Attribute[str] = Attribute("space")
"""The space file's text."""
INFO: Attribute[dict[str, Any]] = Attribute("info")
"""`StudyInfo` as JSON."""
TRIALS: Attribute[int | None] = Attribute("trials")
"""Number of configurations wanted in all; None: no number was given."""
ALIVE: AttributeFamily[int | None] = AttributeFamily("alive:")
"""A count that a worker raises while it lives, by its name; None: it left."""
