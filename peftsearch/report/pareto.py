"""The card that matters: metric against tuned %, the frontier as a staircase."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from peftsearch.report.axis import COLOURS, TunedAxis, layout, metric_title
from peftsearch.report.labels import hover, safe
from peftsearch.report.names import place_labels
from peftsearch.search.outcome import front_of
from peftsearch.search.records import StudyInfo, StudyRecord, TrialResult

__all__ = ["pareto_figure"]

_WIDTH_PX, _HEIGHT_PX = 1020.0, 440.0
"""Of the plotting area on a page 1,280 pixels wide: for placing labels."""


def pareto_figure(record: StudyRecord) -> go.Figure:
    """Full-length trials, stopped ones faint, the literature's methods named, frontier drawn."""
    info, axis = record.info, TunedAxis.of(record)
    front = {point.number for point in front_of(record)}
    full = [r for r in record.results if r.state == "full"]
    stopped = [r for r in record.results if r.state == "stopped"]
    figure = go.Figure()
    figure.add_trace(_points(stopped, axis, info, "stopped early", COLOURS["stopped"], 7, 0.55))
    figure.add_trace(_staircase([r for r in full if r.number in front], axis))
    others = [r for r in full if r.number not in front and not r.method]
    figure.add_trace(_points(others, axis, info, "full length", COLOURS["full"], 9, 0.8))
    figure.add_trace(_methods([r for r in full if r.method and r.number not in front], axis, info))
    figure.add_trace(_frontier([r for r in full if r.number in front], axis, info))
    figure.update_layout(layout("tuned parameters, % of the backbone", metric_title(info), 520))
    values, texts = axis.ticks()
    figure.update_xaxes(tickvals=values, ticktext=texts, range=[axis.begin, axis.end])
    low, high = _metric_range(record)
    figure.update_yaxes(range=[low, high])
    figure.update_layout(annotations=[*_names(full, axis, low, high), *_break(axis)])
    return figure


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
    trace = _points(results, axis, info, "methods of the literature", COLOURS["landmark"], 10, 0.9)
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


def _names(
    results: Sequence[TrialResult], axis: TunedAxis, low: float, high: float
) -> list[dict[str, object]]:
    """Names of the literature's methods beside their points; `low` and `high` bound the y axis."""

    def pixels(result: TrialResult) -> tuple[float, float]:
        x = (axis.at(result.tuned_pct) - axis.begin) / (axis.end - axis.begin)
        y = (high - (result.metric or 0.0)) / (high - low)
        return x * _WIDTH_PX, y * _HEIGHT_PX

    named = sorted((r for r in results if r.method), key=lambda r: (r.tuned_pct, r.number))
    labels = place_labels(
        [(r.method or "", *pixels(r)) for r in named],
        [pixels(r) for r in results],
        _WIDTH_PX,
        _HEIGHT_PX,
    )
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


def _metric_range(record: StudyRecord) -> tuple[float, float]:
    """Bounds of the y axis: every drawn trial and its standard error, with a margin."""
    drawn = [r for r in record.results if r.metric is not None and r.state in ("full", "stopped")]
    if not drawn:
        return record.info.metric.worst, record.info.metric.best
    low = min((r.metric or 0.0) - (r.metric_se or 0.0) for r in drawn)
    high = max((r.metric or 0.0) + (r.metric_se or 0.0) for r in drawn)
    margin = 0.06 * max(high - low, 1e-3)
    return low - margin, high + margin


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
