"""Escaping text for HTML and for plotly, which interprets some tags itself."""

from __future__ import annotations

import html
import textwrap

from peftsearch.records.rates import Rates
from peftsearch.records.records import PublishedValue, StudyInfo, TrialResult
from peftsearch.report.table import served

__all__ = ["hover", "hover_published", "safe"]


def safe(text: str) -> str:
    """The text, escaped: names, labels and descriptions come from the user's files."""
    return html.escape(text, quote=False)


def hover(result: TrialResult, info: StudyInfo) -> str:
    """Hover text of a trial."""
    lines = textwrap.wrap(result.description, 60)
    name = f"<b>#{result.number}{' ' + safe(result.method) if result.method else ''}</b>"
    rows = [name, *map(safe, lines)]
    if rates := str(Rates.of(result.configuration)):
        rows += map(safe, textwrap.wrap(rates, 60))
    if result.metric is not None:
        shown = info.metric.format(result.metric, result.metric_se)
        rows.append(f"{safe(info.metric.name)} {shown}")
    rows.append(f"{result.tuned_pct:.4g} % tuned, {result.tuned_parameters:,} parameters")
    if served_as := served(result):
        rows.append(f"served as {served_as}")
    if result.state == "stopped":
        rows.append("stopped early: not comparable with full length")
    return "<br>".join(rows)


def hover_published(value: PublishedValue, info: StudyInfo) -> str:
    """Hover text of a published result."""
    rows = [
        f"<b>{safe(value.name)} (published)</b>",
        f"{safe(info.metric.name)} {info.metric.format(value.value)}",
        f"{value.tuned_pct:.4g} % tuned",
        "not measured here:",
        *map(safe, textwrap.wrap(value.source, 60)),
    ]
    return "<br>".join(rows)
