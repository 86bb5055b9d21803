"""Placing the names of methods so that they cover neither one another nor a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["NEAR", "Box", "Label", "place_labels"]

_CHARACTER_PX = 6.4
_HEIGHT_PX = 14.0
_POINT_PX = 7.0


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Common area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


@dataclass(frozen=True)
class Label:
    """A label: its shift from its point in pixels, and its side that is anchored there."""

    text: str
    xanchor: str
    xshift: float
    yshift: float
    box: Box


def place_labels(
    names: Sequence[tuple[str, float, float]],
    points: Sequence[tuple[float, float]],
    width: float,
    height: float,
    before: Sequence[Label] = (),
    places: Sequence[tuple[str, float, float]] | None = None,
) -> list[Label]:
    """A label for each (name, x, y), pixels from the upper left of a plot of `width` × `height`.

    Greedy: each takes the first of some places around its point that covers nothing, or the one
    that covers least. Labels placed `before` stay where they are.
    """
    taken = [Box(x - _POINT_PX, y - _POINT_PX, x + _POINT_PX, y + _POINT_PX) for x, y in points]
    taken += [label.box for label in before]
    labels = []
    for text, x, y in names:
        options = [_label(text, x, y, *place) for place in places or _PLACES]
        label = min(options, key=lambda o: _cost(o.box, taken, width, height))
        taken.append(label.box)
        labels.append(label)
    return labels


_PLACES = tuple(
    (anchor, shift, rise)
    for rise in (12, -12, 0, 26, -26, 40, -40)
    for anchor, shift in (("left", 8), ("right", -8), ("center", 0))
    if anchor != "center" or abs(rise) > 20
)
NEAR = tuple(place for place in _PLACES if abs(place[2]) < 20)
"""The places of text that belongs to a marker, as plotly knows them."""


def _label(text: str, x: float, y: float, anchor: str, xshift: float, rise: float) -> Label:
    width = _CHARACTER_PX * len(text)
    start = x + xshift - {"left": 0.0, "center": width / 2, "right": width}[anchor]
    middle = y - rise
    box = Box(start, middle - _HEIGHT_PX / 2, start + width, middle + _HEIGHT_PX / 2)
    return Label(text, anchor, xshift, rise, box)


def _cost(box: Box, taken: Sequence[Box], width: float, height: float) -> float:
    """Area covered, plus a heavy penalty for pixels outside the plot."""
    outside = max(-box.left, 0) + max(box.right - width, 0)
    outside += max(-box.top, 0) + max(box.bottom - height, 0)
    return sum(box.overlap(other) for other in taken) + 100 * outside
