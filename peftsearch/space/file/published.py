"""Published results in a space file: points of a paper, plotted beside the user's frontier."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from peftsearch.design.methods import METHODS
from peftsearch.errors import did_you_mean
from peftsearch.space.file.values import Model

__all__ = ["Published", "PublishedPoint"]


class PublishedPoint(Model):
    """One reported result. `tuned_pct` is counted as this package counts, not copied; `value` is on
    the metric's scale here (accuracy 0–1, ROUGE and BLEU 0–100).
    """

    method: str | None = None
    """The published method (`peftsearch ls methods`) that was trained."""
    name: str | None = None
    """A label where the method alone is not enough: `mam l=30 r=512`."""
    tuned_pct: float = Field(ge=0, le=100, allow_inf_nan=False)
    value: float = Field(allow_inf_nan=False)

    @property
    def label(self) -> str:
        return self.name or self.method or ""

    @field_validator("method")
    @classmethod
    def _known(cls, method: str | None) -> str | None:
        if method is not None and method not in METHODS:
            raise ValueError(f"method '{method}' unknown{did_you_mean(method, METHODS)}")
        return method

    @model_validator(mode="after")
    def _has_a_label(self) -> PublishedPoint:
        if not self.label.strip():
            raise ValueError("a published point needs a name or a method")
        return self


class Published(Model):
    """Results of one source in one metric: for comparison, never part of a frontier."""

    metric: str = Field(min_length=1)
    source: str = Field(min_length=1)
    """Who reports them, where, and of which model and data."""
    points: tuple[PublishedPoint, ...] = Field(min_length=1)

    @field_validator("points")
    @classmethod
    def _named_once(cls, points: tuple[PublishedPoint, ...]) -> tuple[PublishedPoint, ...]:
        labels = [point.label for point in points]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"'{label}' appears twice: give the points different names")
        return points
