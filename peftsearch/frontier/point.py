"""A point of the plane that a search explores."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Point"]


@dataclass(frozen=True)
class Point:
    """One full-length trial: its metric (with standard error) and its tuned %."""

    number: int
    metric: float
    tuned_pct: float
    se: float = 0.0
