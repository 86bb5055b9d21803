"""The Pareto set of two objectives: a better metric, fewer tuned parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Point", "pareto"]


@dataclass(frozen=True)
class Point:
    """One full-length trial: its metric (with standard error) and its tuned %."""

    number: int
    metric: float
    tuned_pct: float
    se: float = 0.0


def pareto(points: Iterable[Point], maximise: bool = True) -> list[Point]:
    """The points no other beats in both objectives, cheapest first. O(n log n).

    Of points equal in both, the one with the lowest trial number stays.
    """
    sign = 1.0 if maximise else -1.0
    front: list[Point] = []
    best = float("-inf")
    for point in sorted(points, key=lambda p: (p.tuned_pct, -sign * p.metric, p.number)):
        if sign * point.metric > best:
            best = sign * point.metric
            front.append(point)
    return front
