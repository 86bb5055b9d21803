"""Decisions: what a policy answers, each with a reason for people."""

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

    `what` is one of three: parameters of the space by name; a source of suggestions, asked for one
    parameter after the other as the space is walked; or a configuration that the space cannot
    express, which is trained as a landmark. Suggestions are asked for after the study's lock is
    released, so that slow proposals belong there.
    """

    what: Mapping[str, Any] | Suggester | Configuration
    reason: str = ""
    seed: str | None = None
    """Unique label of a seed; its trial carries it."""
    method: str | None = None
    """The literature's method that this is, by name."""


@dataclass(frozen=True)
class Continue:
    """Go on with trial `number`: take up one that waits, or train one that reached a rung further.

    A trial that was taken up at a rung is judged there again before it trains.
    """

    number: int
    reason: str = ""


@dataclass(frozen=True)
class Pause:
    """Put trial `number` back at its rung, with a checkpoint; it waits until a Continue."""

    number: int
    reason: str = ""


@dataclass(frozen=True)
class Stop:
    """End trial `number` at its rung for good: its last metric is its result."""

    number: int
    reason: str = ""


@dataclass(frozen=True)
class Nothing:
    """Nothing to do until another trial ends; a worker without trials leaves."""

    reason: str = ""


Decision = Begin | Continue | Pause | Stop | Nothing
Verdict = Continue | Pause | Stop
"""The decisions on a trial that reached a rung."""
