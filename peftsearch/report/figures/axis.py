"""Axes shared by the figures (log tuned % with a break before 0 %, the metric), and colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peftsearch.records.records import MetricScale, StudyInfo, StudyRecord
from peftsearch.report.figures.text import safe

__all__ = ["COLOURS", "TunedAxis", "layout", "metric_range", "metric_title"]

COLOURS = {
    "frontier": "#0b6e4f",
    "landmark": "#b3541e",
    "full": "#4a6fa5",
    "stopped": "#b8bfca",
    "published": "#7b8794",
    "ink": "#1d2733",
    "grid": "#e8ebf0",
}


@dataclass(frozen=True)
class TunedAxis:
    """log10(tuned %), 0 % drawn left of the least value, behind a break."""

    low: float
    high: float
    zero: float
    has_zero: bool

    @classmethod
    def of(cls, record: StudyRecord, beside: Sequence[float] = ()) -> TunedAxis:
        """Wide enough for every trial, and for tuned % to be drawn beside them."""
        info = record.info
        tuned = [r.tuned_pct for r in record.results if r.tuned_pct > 0]
        tuned += [tuned_pct for tuned_pct in beside if tuned_pct > 0]
        low = math.log10(min([info.budget_lo_pct, *tuned]))
        high = math.log10(max([info.budget_hi_pct, *tuned]))
        zero = low - 0.12 * (high - low)
        has_zero = any(r.tuned_pct == 0 and r.metric is not None for r in record.results)
        has_zero = has_zero or 0 in beside
        return cls(low, high, zero, has_zero)

    def at(self, tuned_pct: float) -> float:
        return math.log10(tuned_pct) if tuned_pct > 0 else self.zero

    @property
    def begin(self) -> float:
        margin = 0.04 * (self.high - self.low)
        return (self.zero if self.has_zero else self.low) - margin

    @property
    def end(self) -> float:
        return self.high + 0.04 * (self.high - self.low)

    @property
    def break_at(self) -> float:
        return (self.zero + self.low) / 2

    def ticks(self) -> tuple[list[float], list[str]]:
        """1, 2, 5 of every decade in the range, and 0."""
        values = [
            m * 10.0**e
            for e in range(math.floor(self.low) - 1, math.ceil(self.high) + 1)
            for m in ((1, 2, 5) if self.high - self.low < 2.2 else (1,))
            if self.low - 0.02 <= math.log10(m * 10.0**e) <= self.high + 0.02
        ]
        zero = [self.zero] if self.has_zero else []
        return [*zero, *(math.log10(v) for v in values)], [
            *("0" for _ in zero),
            *(f"{v:g}" for v in values),
        ]


def layout(title_x: str, title_y: str, height: int) -> dict[str, object]:
    """plotly layout that all figures share; `height` in pixels."""
    axis = {
        "gridcolor": COLOURS["grid"],
        "zeroline": False,
        "linecolor": "#c5ccd6",
        "ticks": "outside",
        "tickcolor": "#c5ccd6",
    }
    return {
        "template": "none",
        "height": height,
        "margin": {"l": 84 if "<br>" in title_y else 64, "r": 20, "t": 16, "b": 52},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": COLOURS["ink"]},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"size": 12}},
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#b8bfca", "activecolor": "#5b6775"},
        "xaxis": {**axis, "title": {"text": title_x}},
        "yaxis": {**axis, "title": {"text": title_y}},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }


def metric_title(info: StudyInfo) -> str:
    """The metric's axis title, `validation accuracy`; for losses with the direction."""
    metric = info.metric
    direction = "" if metric.maximise else "<br>(less is better)"
    return f"validation {safe(metric.title or metric.name)}{direction}"


BEYOND_WORST = 0.25
"""Extent of an axis below a constant predictor, as a share of the best metric's distance above
it.
"""


def metric_range(values: Sequence[float], metric: MetricScale) -> tuple[float, float]:
    """Bounds of the metric's axis: all values, but not far beyond `worst`, so that one diverged
    trial does not flatten the others.
    """
    drawn = [value for value in values if math.isfinite(value)]
    if not drawn:
        return min(metric.worst, metric.best), max(metric.worst, metric.best)
    low, high = min(drawn), max(drawn)
    best = high if metric.maximise else low
    limit = metric.worst - BEYOND_WORST * (best - metric.worst)
    if metric.maximise and best > metric.worst:
        low = max(low, limit)
    elif not metric.maximise and best < metric.worst:
        high = min(high, limit)
    margin = 0.06 * max(high - low, 10.0**-metric.decimals)
    return low - margin, high + margin
