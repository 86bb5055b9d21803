"""HTML representation of a study for notebooks: summary, plot, frontier table."""

from __future__ import annotations

from html import escape

import pandas as pd

from peftsearch.api.summary import summary_sentence
from peftsearch.records.records import StudyRecord

__all__ = ["study_html"]


def study_html(record: StudyRecord, frontier: pd.DataFrame) -> str:
    """Summary sentence, Pareto plot and frontier table of a study; names are escaped."""
    from peftsearch.report.figures.pareto import pareto_figure

    info = record.info
    line = f"study {info.name}: {info.model} on {info.task_name}; {summary_sentence(record)}"
    if frontier.empty:
        return f"<p>{escape(line)}</p>"
    figure = pareto_figure(record).to_html(full_html=False, include_plotlyjs="cdn")
    written = [
        info.metric.format(value, error)
        for value, error in zip(frontier["metric"], frontier["metric_se"], strict=True)
    ]
    shown = pd.DataFrame(
        {
            "tuned %": [f"{value:.3g}" for value in frontier["tuned_pct"]],
            info.metric.name: written,
            "method": frontier["method"].fillna(""),
            "configuration": frontier["configuration"],
        },
        index=frontier.index,
    )
    return f"<p>{escape(line)}</p>{figure}{shown.to_html(escape=True)}"
