"""The Pareto plot: metric against tuned %, the frontier as a staircase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from peftsearch.records.records import PublishedValue, StudyInfo, StudyRecord, TrialResult
from peftsearch.report.figures.axis import COLOURS, TunedAxis, layout, metric_range, metric_title
from peftsearch.report.figures.label_places import NEAR, Label, place_labels
from peftsearch.report.figures.published import label_text, named_of, published_in, published_trace
from peftsearch.report.figures.text import hover, safe

__all__ = ["pareto_figure", "pareto_range"]

_WIDTH_PX, _HEIGHT_PX = 1020.0, 440.0
"""Size of the plotting area on a page 1,280 pixels wide: for placing labels."""


@dataclass(frozen=True)
class _Plane:
    """Maps points to pixels, for placing labels; `low` and `high` bound the metric."""

    axis: TunedAxis
    low: float
    high: float

    def pixels(self, tuned_pct: float, metric: float) -> tuple[float, float]:
        """From the upper left."""
        axis = self.axis
        x = (axis.at(tuned_pct) - axis.begin) / (axis.end - axis.begin)
        return x * _WIDTH_PX, (self.high - metric) / (self.high - self.low) * _HEIGHT_PX


def pareto_figure(record: StudyRecord) -> go.Figure:
    """Full-length trials, stopped ones faint, published methods named, frontier drawn, and
    what papers report beside them.
    """
    info, published = record.info, published_in(record.info)
    axis = TunedAxis.of(record, [value.tuned_pct for value in published])
    front = {point.number for point in record.front}
    full = [r for r in record.results if r.state == "full" and r.metric is not None]
    low, high = pareto_range(record)
    plane = _Plane(axis, low, high)
    points = _points_of(full, published, plane)
    named = sorted((r for r in full if r.method), key=lambda r: (r.tuned_pct, r.number))
    labels = _labels(named, points, plane)
    figure = go.Figure()
    if published:
        beside = _published_labels(published, points, labels, plane, info)
        figure.add_trace(published_trace(published, beside, axis, info))
    for trace in _measured(record, full, front, axis):
        figure.add_trace(trace)
    figure.update_layout(layout("tuned parameters, % of the backbone", metric_title(info), 520))
    values, texts = axis.ticks()
    figure.update_xaxes(tickvals=values, ticktext=texts, range=[axis.begin, axis.end])
    figure.update_yaxes(range=[low, high])
    figure.update_layout(annotations=[*_names(named, labels, axis), *_break(axis)])
    return figure


def pareto_range(record: StudyRecord) -> tuple[float, float]:
    """Bounds of the metric's axis: trials with their standard errors, and published values."""
    drawn = [r for r in record.results if r.metric is not None and r.state in ("full", "stopped")]
    ends = [(r.metric or 0.0) + side * (r.metric_se or 0.0) for r in drawn for side in (-1, 1)]
    ends += [value.value for value in published_in(record.info)]
    return metric_range(ends, record.info.metric)


def _measured(
    record: StudyRecord, full: Sequence[TrialResult], front: set[int], axis: TunedAxis
) -> list[go.Scatter]:
    """The study's own trials, the most important last, so that they are drawn on top."""
    info = record.info
    stopped = [r for r in record.results if r.state == "stopped"]
    best = [r for r in full if r.number in front]
    others = [r for r in full if r.number not in front and not r.method]
    return [
        _points(stopped, axis, info, "stopped early", COLOURS["stopped"], 7, 0.55),
        _staircase(best, axis),
        _points(others, axis, info, "full length", COLOURS["full"], 9, 0.8),
        _methods([r for r in full if r.method and r.number not in front], axis, info),
        _frontier(best, axis, info),
    ]


def _points(
    results: Sequence[TrialResult],
    axis: TunedAxis,
    info: StudyInfo,
    name: str,
    colour: str,
    size: int,
    opacity: float,
) -> go.Scatter:
    return go.Scatter(
        x=[axis.at(r.tuned_pct) for r in results],
        y=[r.metric for r in results],
        mode="markers",
        name=name,
        text=[hover(r, info) for r in results],
        hovertemplate="%{text}<extra></extra>",
        marker={"color": colour, "size": size, "opacity": opacity},
    )


def _methods(results: Sequence[TrialResult], axis: TunedAxis, info: StudyInfo) -> go.Scatter:
    trace = _points(results, axis, info, "published methods", COLOURS["landmark"], 10, 0.9)
    return trace.update(marker={"symbol": "diamond"})


def _frontier(results: Sequence[TrialResult], axis: TunedAxis, info: StudyInfo) -> go.Scatter:
    trace = _points(results, axis, info, "frontier (± standard error)", COLOURS["frontier"], 12, 1)
    symbols = ["diamond" if r.method else "circle" for r in results]
    errors = [r.metric_se or 0.0 for r in results]
    return trace.update(
        marker={"symbol": symbols, "line": {"width": 1.5, "color": "white"}},
        error_y={"array": errors, "thickness": 1.2, "width": 3, "color": COLOURS["frontier"]},
    )


def _staircase(results: Sequence[TrialResult], axis: TunedAxis) -> go.Scatter:
    """The best metric within each tuned %: it holds until a costlier point beats it."""
    ordered = sorted(results, key=lambda r: r.tuned_pct)
    x = [axis.at(r.tuned_pct) for r in ordered]
    y = [r.metric for r in ordered]
    if ordered:
        x, y = [*x, axis.end], [*y, y[-1]]
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"shape": "hv", "color": COLOURS["frontier"], "width": 2},
        hoverinfo="skip",
        showlegend=False,
    )


def _points_of(
    results: Sequence[TrialResult], published: Sequence[PublishedValue], plane: _Plane
) -> list[tuple[float, float]]:
    """Pixel positions of all points, which labels must not cover."""
    own = [plane.pixels(r.tuned_pct, r.metric or 0.0) for r in results]
    return own + [plane.pixels(value.tuned_pct, value.value) for value in published]


def _labels(
    named: Sequence[TrialResult], points: Sequence[tuple[float, float]], plane: _Plane
) -> list[Label]:
    """Positions of the names of published methods beside their points."""
    names = [(r.method or "", *plane.pixels(r.tuned_pct, r.metric or 0.0)) for r in named]
    return place_labels(names, points, _WIDTH_PX, _HEIGHT_PX)


def _published_labels(
    published: Sequence[PublishedValue],
    points: Sequence[tuple[float, float]],
    before: Sequence[Label],
    plane: _Plane,
    info: StudyInfo,
) -> list[tuple[PublishedValue, Label]]:
    """Positions of the names of published results, after those of the study's own points."""
    named = named_of(published, info)
    names = [(label_text(v), *plane.pixels(v.tuned_pct, v.value)) for v in named]
    labels = place_labels(names, points, _WIDTH_PX, _HEIGHT_PX, before, NEAR)
    return list(zip(named, labels, strict=True))


def _names(
    named: Sequence[TrialResult], labels: Sequence[Label], axis: TunedAxis
) -> list[dict[str, object]]:
    return [
        {
            "x": axis.at(result.tuned_pct),
            "y": result.metric,
            "text": safe(label.text),
            "showarrow": False,
            "xanchor": label.xanchor,
            "xshift": label.xshift,
            "yshift": label.yshift,
            "font": {"size": 11, "color": COLOURS["landmark"]},
        }
        for result, label in zip(named, labels, strict=True)
    ]


def _break(axis: TunedAxis) -> list[dict[str, object]]:
    """The mark between 0 % and the log axis."""
    if not axis.has_zero:
        return []
    mark: dict[str, object] = {
        "x": axis.break_at,
        "y": 0,
        "yref": "paper",
        "text": "//",
        "showarrow": False,
        "font": {"size": 16, "color": "#7b8794"},
        "bgcolor": "white",
    }
    return [mark]
