"""Learning curves: the metric at every rung, frontier trials in colour."""

from __future__ import annotations

import plotly.graph_objects as go

from peftsearch.records.records import StudyRecord, TrialResult
from peftsearch.report.figures.axis import COLOURS, layout, metric_range, metric_title
from peftsearch.report.figures.text import hover

__all__ = ["curves_figure"]


def curves_figure(record: StudyRecord) -> go.Figure:
    """A line a trial; below full length on a subset of the evaluation set."""
    front = {point.number for point in record.front}
    figure = go.Figure()
    drawn = [r for r in record.results if r.curve and r.state in ("full", "stopped")]
    for result in sorted(drawn, key=lambda r: r.number in front):
        figure.add_trace(_curve(record, result, result.number in front))
    figure.update_layout(layout("training steps", metric_title(record.info), 340))
    figure.update_xaxes(rangemode="tozero")
    values = [value.metric for result in drawn for value in result.curve]
    figure.update_yaxes(range=metric_range(values, record.info.metric))
    return figure


def _curve(record: StudyRecord, result: TrialResult, on_front: bool) -> go.Scatter:
    colour = COLOURS["frontier" if on_front else "stopped"]
    text = hover(result, record.info)
    return go.Scatter(
        x=[value.step for value in result.curve],
        y=[value.metric for value in result.curve],
        mode="lines+markers",
        line={"color": colour, "width": 2 if on_front else 1},
        marker={"size": 6 if on_front else 4},
        opacity=1.0 if on_front else 0.7,
        text=[text] * len(result.curve),
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
