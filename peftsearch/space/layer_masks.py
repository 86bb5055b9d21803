"""Layer masks: named sets of layers, taken of each stack of a backbone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from peftsearch.design.shapes import BackboneShapes

__all__ = ["DEPTHS", "LAYER_MASKS", "intersection", "layer_mask"]

LAYER_MASKS: dict[str, Callable[[int], range]] = {
    "all": lambda n: range(n),
    "upper_half": lambda n: range(n // 2, n),
    "upper_third": lambda n: range(n - max(1, n // 3), n),
    "lower_half": lambda n: range(n - n // 2),
    "every_other": lambda n: range((n - 1) % 2, n, 2),
    "last": lambda n: range(n - 1, n),
}
"""Name → the chosen layers of a stack of n, counted from 0. `every_other` includes the last."""

DEPTHS = ("all", "upper_half", "upper_third", "last")
"""Masks that a whole configuration may be restricted to; each is inside those before it."""


@lru_cache(maxsize=1024)
def layer_mask(name: str, shapes: BackboneShapes) -> tuple[int, ...] | None:
    """The layers of a mask, numbered over the whole backbone; None for all."""
    chosen: list[int] = []
    first = 0
    for size in shapes.stacks or (shapes.layers,):
        chosen += [first + layer for layer in LAYER_MASKS[name](size)]
        first += size
    return None if len(chosen) == shapes.layers else tuple(chosen)


def intersection(
    first: tuple[int, ...] | None, second: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """The layers of both masks; None for all."""
    if first is None or second is None:
        return second if first is None else first
    return tuple(layer for layer in first if layer in second)
