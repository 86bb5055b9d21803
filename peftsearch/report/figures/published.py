"""Published results, drawn beside a study's own points in another style; part of no frontier,
hypervolume or table.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from peftsearch.frontier.pareto import Point, pareto
from peftsearch.records.records import PublishedValue, StudyInfo
from peftsearch.report.figures.axis import COLOURS, TunedAxis
from peftsearch.report.figures.label_places import Label
from peftsearch.report.figures.text import hover_published, safe

__all__ = ["TRACE", "label_text", "named_of", "published_in", "published_trace", "sources_of"]

TRACE = "published, not measured here"
"""The name in the legend, which switches the points and their names off and on."""


def published_in(info: StudyInfo) -> list[PublishedValue]:
    """The published values that can be compared: those in the study's own metric."""
    return [value for value in info.published if value.metric == info.metric.name]


def sources_of(info: StudyInfo) -> list[str]:
    """Sources of the published values that are plotted."""
    return list(dict.fromkeys(value.source for value in published_in(info)))


def named_of(values: Sequence[PublishedValue], info: StudyInfo) -> list[PublishedValue]:
    """The non-dominated published values, which alone are labelled, to keep the plot readable."""
    points = [Point(i, value.value, value.tuned_pct) for i, value in enumerate(values)]
    return [values[point.number] for point in pareto(points, info.metric.maximise)]


def label_text(value: PublishedValue) -> str:
    """`MAM l=30 r=512 (published)`."""
    return f"{value.name} (published)"


def published_trace(
    values: Sequence[PublishedValue],
    labels: Sequence[tuple[PublishedValue, Label]],
    axis: TunedAxis,
    info: StudyInfo,
) -> go.Scatter:
    """Hollow grey diamonds, with the names of some."""
    placed = {id(value): label for value, label in labels}
    return go.Scatter(
        x=[axis.at(value.tuned_pct) for value in values],
        y=[value.value for value in values],
        mode="markers+text",
        name=TRACE,
        text=[safe(label_text(v)) if id(v) in placed else "" for v in values],
        textposition=[_position(placed.get(id(v))) for v in values],
        textfont={"size": 11, "color": COLOURS["published"]},
        customdata=[hover_published(value, info) for value in values],
        hovertemplate="%{customdata}<extra></extra>",
        marker={
            "symbol": "diamond-open",
            "color": COLOURS["published"],
            "size": 9,
            "line": {"width": 1.5},
        },
    )


def _position(label: Label | None) -> str:
    """Plotly's word for where a name stands; a label anchored at its left stands on the right."""
    if label is None:
        return "top center"
    side = "right" if label.xanchor == "left" else "left"
    level = "top" if label.yshift > 0 else "bottom" if label.yshift < 0 else "middle"
    return f"{level} {side}"
