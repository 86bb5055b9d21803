"""The hypervolume figure: growth of the frontier over trials, or over their cost."""

from __future__ import annotations

import itertools

import plotly.graph_objects as go

from peftsearch.frontier.hypervolume import hypervolume_trace
from peftsearch.records.records import StudyRecord
from peftsearch.report.figures.axis import COLOURS, layout

__all__ = ["hypervolume_figure"]


def hypervolume_figure(record: StudyRecord, over: str) -> go.Figure:
    """`over`: `trials` in the order they ended, or `cost` in CPU minutes of all trials."""
    ended = [r for r in record.results if r.state in ("full", "stopped", "failed")]
    ended.sort(key=lambda r: (r.finished_at, r.number))
    points = {point.number: point for point in record.points}
    full = [r.number for r in ended if r.number in points]
    grown = hypervolume_trace([points[n] for n in full], record.info.hypervolume_scale)
    trace = dict(zip(full, grown, strict=True))
    heights = list(itertools.accumulate((trace.get(r.number, 0.0) for r in ended), max))
    spent = list(itertools.accumulate(r.cpu_s / 60 for r in ended))
    x = list(range(1, len(ended) + 1)) if over == "trials" else spent
    title = "configurations evaluated" if over == "trials" else "training cost, CPU minutes"
    figure = go.Figure(
        go.Scatter(
            x=x,
            y=heights,
            mode="lines+markers",
            line={"shape": "hv", "color": COLOURS["frontier"], "width": 2},
            marker={"size": 5},
            hovertemplate="%{x:.4g}: %{y:.4f}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_layout(layout(title, "hypervolume", 300))
    figure.update_xaxes(rangemode="tozero")
    return figure
