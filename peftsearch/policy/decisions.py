"""The decisions that a policy may return, each with a human-readable reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftsearch.design.configuration import Configuration
from peftsearch.space.file.values import Suggester

__all__ = ["Begin", "Continue", "Decision", "Nothing", "Pause", "Stop", "Verdict"]


@dataclass(frozen=True)
class Begin:
    """Begin a new trial.

    `proposal` is one of three: parameters of the space by name; a suggester, called for one
    parameter after another while the space is sampled; or a configuration outside the space. The
    suggester is called after the study's lock is released, so it may be slow.
    """

    proposal: Mapping[str, Any] | Suggester | Configuration
    reason: str = ""
    seed: str | None = None
    """Unique label of a seed, recorded with its trial."""
    method: str | None = None
    """Name of the published method that this is."""


@dataclass(frozen=True)
class Continue:
    """Continue trial `number`: resume one that waits, or train one beyond the rung it reached.

    A trial resumed at a rung is judged there again before it trains.
    """

    number: int
    reason: str = ""


@dataclass(frozen=True)
class Pause:
    """Pause trial `number` at its rung, with a checkpoint, until a policy returns Continue."""

    number: int
    reason: str = ""


@dataclass(frozen=True)
class Stop:
    """Stop trial `number` at its rung: its last metric is its result."""

    number: int
    reason: str = ""


@dataclass(frozen=True)
class Nothing:
    """No work until another trial ends; a worker without trials exits."""

    reason: str = ""


Decision = Begin | Continue | Pause | Stop | Nothing
Verdict = Continue | Pause | Stop
"""The decisions on a trial that reached a rung."""
