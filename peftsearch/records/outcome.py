"""From a study's records to points, frontier and hypervolume."""

from __future__ import annotations

from peftsearch.frontier.hypervolume import HypervolumeScale, hypervolume
from peftsearch.frontier.pareto import pareto
from peftsearch.frontier.point import Point
from peftsearch.records.records import StudyInfo, StudyRecord, TrialResult

__all__ = ["front_of", "hypervolume_of", "points_of", "scale_of"]


def points_of(record: StudyRecord) -> list[Point]:
    """Full-length trials alone: a stopped trial's metric is of another training length."""
    return [_point(r) for r in record.results if r.state == "full" and r.metric is not None]


def _point(result: TrialResult) -> Point:
    assert result.metric is not None
    return Point(result.number, result.metric, result.tuned_pct, result.metric_se or 0.0)


def front_of(record: StudyRecord) -> list[Point]:
    """The configurations no other beats in both metric and tuned %, cheapest first."""
    return pareto(points_of(record), record.info.metric.maximise)


def scale_of(info: StudyInfo) -> HypervolumeScale:
    """The reference of the hypervolume, fixed when the study began."""
    return HypervolumeScale(
        lo_pct=info.budget_lo_pct,
        hi_pct=info.budget_hi_pct,
        worst=info.metric.worst,
        best=info.metric.best,
        maximise=info.metric.maximise,
    )


def hypervolume_of(record: StudyRecord) -> float:
    """Of the frontier over log tuned %, in [0, 1]."""
    return hypervolume(points_of(record), scale_of(record.info))
