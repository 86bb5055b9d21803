"""Hypervolume of a frontier over log tuned %, scaled to [0, 1] by a fixed reference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from peftsearch.frontier.pareto import Point, pareto

__all__ = ["HypervolumeScale", "hypervolume", "hypervolume_trace"]


@dataclass(frozen=True)
class HypervolumeScale:
    """The reference: the space's budget range in tuned %, and the metric's worst and best."""

    lo_pct: float
    hi_pct: float
    worst: float
    best: float
    maximise: bool = True

    def height(self, metric: float) -> float:
        """A metric scaled to [0, 1], from worst to best, and clipped."""
        share = (metric - self.worst) / (self.best - self.worst)
        return min(max(share, 0.0), 1.0)


def hypervolume(points: Iterable[Point], scale: HypervolumeScale) -> float:
    """The area under the frontier's steps, in [0, 1].

    That is the mean, over u uniform in [log lo, log hi], of the best scaled metric among points
    with tuned % ≤ eᵘ. A point below lo counts from lo, one above hi does not count.
    """
    low, high = math.log(scale.lo_pct), math.log(scale.hi_pct)
    total = reached = 0.0
    for point in pareto(points, scale.maximise):
        if point.tuned_pct > scale.hi_pct:
            break
        begins = math.log(max(point.tuned_pct, scale.lo_pct))
        height = scale.height(point.metric)
        total += max(height - reached, 0.0) * (high - begins)
        reached = max(reached, height)
    return total / (high - low)


def hypervolume_trace(points: Iterable[Point], scale: HypervolumeScale) -> list[float]:
    """The hypervolume after each point, in the given order."""
    front: list[Point] = []
    trace = []
    for point in points:
        front = pareto([*front, point], scale.maximise)
        trace.append(hypervolume(front, scale))
    return trace
