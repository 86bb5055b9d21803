"""The log axis of tuned %, with a place for 0 % left of a break, and the page's colours."""

from __future__ import annotations

import math
from dataclasses import dataclass

from peftsearch.search.records import StudyInfo, StudyRecord

__all__ = ["COLOURS", "TunedAxis", "layout"]

COLOURS = {
    "frontier": "#0b6e4f",
    "landmark": "#b3541e",
    "full": "#4a6fa5",
    "stopped": "#b8bfca",
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
    def of(cls, record: StudyRecord) -> TunedAxis:
        info = record.info
        tuned = [r.tuned_pct for r in record.results if r.tuned_pct > 0]
        low = math.log10(min([info.budget_lo_pct, *tuned]))
        high = math.log10(max([info.budget_hi_pct, *tuned]))
        zero = low - 0.12 * (high - low)
        has_zero = any(r.tuned_pct == 0 and r.metric is not None for r in record.results)
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
    """What all figures share."""
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
        "margin": {"l": 64, "r": 20, "t": 16, "b": 52},
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
    """`validation accuracy`."""
    return f"validation {info.metric.name}"
