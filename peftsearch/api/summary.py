"""A one-sentence summary of a study: its best point, and the smallest that is nearly as good."""

from __future__ import annotations

from peftsearch.frontier.choose import cheapest_within, choose
from peftsearch.frontier.pareto import Point
from peftsearch.records.derive import count_states
from peftsearch.records.records import StudyRecord
from peftsearch.wording import counted

__all__ = ["summary_sentence"]


def summary_sentence(record: StudyRecord) -> str:
    """The best configuration found, and the one that tunes least within a standard error of it.

    The standard error is that of the best metric, from the size of the validation set alone: of two
    points closer than that, either may be the better one on other data.
    """
    front, metric = record.front, record.info.metric
    if not front:
        return "no configuration at full length yet"
    best = choose(front, "best", metric.maximise)
    of = counted(count_states(record)["evaluated"], "configuration")
    first = (
        f"best of {of} evaluated: {metric.name} "
        f"{metric.format(best.metric, best.se or None)} with {_tuned(best)}"
    )
    near = cheapest_within(front, best.se, metric.maximise)
    if near.number == best.number or not best.se:
        return first
    return (
        f"{first}; within one standard error of it, {metric.format(near.metric)} with "
        f"{_tuned(near)}"
    )


def _tuned(point: Point) -> str:
    return f"{point.tuned_pct:.3g} % tuned (#{point.number})"
