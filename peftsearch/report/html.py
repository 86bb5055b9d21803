"""Rendering the report: one self-contained HTML file that works offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from peftsearch.disk.atomic import write_atomic
from peftsearch.records.derive import count_states
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyRecord
from peftsearch.report.figures.curves import curves_figure
from peftsearch.report.figures.hypervolume import hypervolume_figure
from peftsearch.report.figures.pareto import pareto_figure, pareto_range
from peftsearch.report.figures.published import sources_of
from peftsearch.report.samples import Samples, samples_of_best
from peftsearch.report.table import frontier_rows, trial_rows
from peftsearch.version import __version__
from peftsearch.wording import counted

__all__ = ["render_report", "write_report"]


def write_report(
    record: StudyRecord,
    path: Path,
    environment: Mapping[str, Any] = {},
    folder: StudyFolder | None = None,
    plotly_from: str | None = None,
) -> None:
    """Render a study and write it to `path`, whole or not at all; of a study's `folder` also
    examples of texts that its best configuration generates. The page holds plotly.js, 4.7 MB,
    unless it is to load it from somewhere.
    """
    samples = samples_of_best(folder, record) if folder is not None else None
    write_atomic(path, render_report(record, environment or {}, samples, plotly_from))


def render_report(
    record: StudyRecord,
    environment: Mapping[str, Any],
    samples: Samples | None = None,
    plotly_from: str | None = None,
) -> str:
    """The page as text. Everything of the user's is escaped."""
    page = Environment(
        loader=PackageLoader("peftsearch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html.j2")
    figures = {
        "pareto": pareto_figure(record),
        "hypervolume-trials": hypervolume_figure(record, "trials"),
        "hypervolume-cost": hypervolume_figure(record, "cost"),
        "curves": curves_figure(record),
    }
    front = frontier_rows(record)
    return page.render(
        info=record.info,
        metric=record.info.metric,
        title=_capital(record.info.metric.title or record.info.metric.name),
        sources=sources_of(record.info),
        outside=_outside(record),
        samples=samples,
        counts=count_states(record),
        front=front,
        best=front[-1] if front else None,
        head_only=_best_head_only(record),
        trials=trial_rows(record),
        hypervolume=record.hypervolume,
        environment=dict(environment),
        cpu_minutes=sum(r.cpu_s for r in record.results) / 60,
        figures={name: _json(figure) for name, figure in figures.items()},
        plotly_from=plotly_from,
        plotly_js=Markup("" if plotly_from else get_plotlyjs()),
        version=__version__,
        counted=counted,
    )


def _best_head_only(record: StudyRecord) -> float | None:
    sign = 1.0 if record.info.metric.maximise else -1.0
    values = [r.metric for r in record.results if r.state == "full" and r.tuned_parameters == 0]
    return max((v for v in values if v is not None), key=lambda v: sign * v, default=None)


def _capital(text: str) -> str:
    """Only the first letter: `str.capitalize` would make Rouge-2 f1 of ROUGE-2 F1."""
    return text[:1].upper() + text[1:]


def _outside(record: StudyRecord) -> int:
    """Trials whose metric lies beyond the plot's range."""
    low, high = pareto_range(record)
    return sum(
        r.metric is not None and not low <= r.metric <= high
        for r in record.results
        if r.state in ("full", "stopped")
    )


def _json(figure: go.Figure) -> Markup:
    """A figure as JSON, escaped for use in a script element."""
    text = str(figure.to_json())
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
