"""Choosing one point of a frontier: the best, the knee, within a limit, or by number."""

from __future__ import annotations

import math
from collections.abc import Sequence

from peftsearch.errors import NothingFeasible, UsageError
from peftsearch.frontier.pareto import Point

__all__ = ["cheapest_within", "choose"]


def choose(front: Sequence[Point], at: str, maximise: bool = True) -> Point:
    """The point at `best` (metric), `knee`, a limit on tuned % (`0.5`), or a trial (`#28`).

    NothingFeasible for an empty frontier, UsageError if `at` names none of its points.
    """
    if not front:
        raise NothingFeasible("the frontier is empty: no trial has reached full length")
    sign = 1.0 if maximise else -1.0
    if at == "best":
        return max(front, key=lambda p: sign * p.metric)
    if at == "knee":
        return _knee(front, sign)
    if at.startswith("#"):
        return _numbered(front, at)
    return _within(front, at, sign)


def _numbered(front: Sequence[Point], at: str) -> Point:
    for point in front:
        if at[1:] == str(point.number):
            return point
    known = ", ".join(f"#{p.number}" for p in front)
    raise UsageError(f"'{at}' is not a trial of the frontier; it has {known}")


def _within(front: Sequence[Point], at: str, sign: float) -> Point:
    try:
        limit = float(at.removesuffix("%"))
    except ValueError as error:
        raise UsageError(
            f"'{at}' names no point: give best, knee, a limit on tuned % such as 0.5, or '#28'"
        ) from error
    fitting = [point for point in front if point.tuned_pct <= limit]
    if not fitting:
        least = min(point.tuned_pct for point in front)
        raise UsageError(f"nothing tunes {limit:g} % or less; the least is {least:.3g} %")
    return max(fitting, key=lambda p: sign * p.metric)


def _knee(front: Sequence[Point], sign: float) -> Point:
    """The point farthest above the line from the first to the last, over log tuned %."""
    points = [p for p in front if p.tuned_pct > 0] or list(front)
    first, last = points[0], points[-1]
    width = math.log(last.tuned_pct / first.tuned_pct) if last is not first else 0.0
    if width <= 0:
        return last
    slope = sign * (last.metric - first.metric) / width

    def above(point: Point) -> float:
        reach = math.log(point.tuned_pct / first.tuned_pct)
        return sign * (point.metric - first.metric) - slope * reach

    return max(points, key=above)


def cheapest_within(front: Sequence[Point], margin: float, maximise: bool = True) -> Point:
    """The point that tunes least among those at most `margin` worse than the best, in units of the
    metric.
    """
    if not front:
        raise NothingFeasible("the frontier is empty: no trial has reached full length")
    if not margin >= 0:
        raise UsageError(f"`within` must be 0 or more, in the metric's units, not {margin:g}")
    sign = 1.0 if maximise else -1.0
    least = max(sign * point.metric for point in front) - margin
    return min((p for p in front if sign * p.metric >= least), key=lambda p: p.tuned_pct)
