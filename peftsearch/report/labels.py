"""Text of the report: safe for HTML and for plotly, which takes some tags for its own."""

from __future__ import annotations

import html
import textwrap

from peftsearch.search.records import StudyInfo, TrialResult

__all__ = ["hover", "safe"]


def safe(text: str) -> str:
    """Escaped: names, labels and descriptions come from the user's files."""
    return html.escape(text, quote=False)


def hover(result: TrialResult, info: StudyInfo) -> str:
    """One trial in a few lines."""
    lines = textwrap.wrap(result.description, 60)
    name = f"<b>#{result.number}{' ' + safe(result.method) if result.method else ''}</b>"
    rows = [name, *map(safe, lines)]
    if result.metric is not None:
        rows.append(f"{safe(info.metric.name)} {result.metric:.4f} ± {result.metric_se or 0:.4f}")
    rows.append(f"{result.tuned_pct:.4g} % tuned, {result.tuned_parameters:,} parameters")
    if result.state == "stopped":
        rows.append("stopped early: not comparable with full length")
    return "<br>".join(rows)
