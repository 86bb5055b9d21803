"""Random samples of a space on a backbone, with their tuned %, without training."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from peftsearch.design.configuration import Configuration
from peftsearch.design.shapes import BackboneShapes
from peftsearch.space.decode import Sample, decode
from peftsearch.space.placed import PlacedSpace

__all__ = ["RandomSamples", "RandomSuggestions", "draw_samples"]

_SAMPLES = 500


class RandomSuggestions:
    """A stand-in for an Optuna trial that suggests each value at random, independently: uniform,
    or log-uniform for a log range.
    """

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return self._random.choice(choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if not log:
            return self._random.uniform(low, high)
        value = math.exp(self._random.uniform(math.log(low), math.log(high)))
        return min(max(value, low), high)  # exp(log(low)) may be just below low


@dataclass(frozen=True)
class RandomSamples:
    """Random samples of a space on one backbone."""

    samples: tuple[Sample, ...]
    shapes: BackboneShapes

    @property
    def configurations(self) -> list[Configuration]:
        return [s.configuration for s in self.samples if s.configuration is not None]

    def facts(self) -> dict[str, Any]:
        """Ranges of tuned % and of the share of the budget used, as text."""
        tuned = sorted(c.tuned_pct(self.shapes) for c in self.configurations)
        used = sorted(
            s.configuration.tuned_pct(self.shapes) / s.budget_pct
            for s in self.samples
            if s.configuration is not None and s.budget_pct is not None
        )
        distinct = {c.hash for c in self.configurations}
        return {
            "sampled": len(self.samples),
            "nothing fits the budget": len(self.samples) - len(tuned),
            "duplicates": len(tuned) - len(distinct),
            "tuned % (least, median, greatest)": _three(tuned),
            "share of the budget used (5 %, median, greatest)": _three(used, 0.05),
        }


def draw_samples(placed: PlacedSpace, seed: int = 0) -> RandomSamples:
    """500 random samples; the same seed gives the same ones.

    >>> drawn = draw_samples(load_space("demo").on(load_shapes("config:bert-base")))
    >>> drawn.facts()["sampled"]
    500
    """
    source = RandomSuggestions(seed)
    return RandomSamples(tuple(decode(placed, source) for _ in range(_SAMPLES)), placed.shapes)


def _three(values: list[float], low: float = 0.0) -> str:
    if not values:
        return "none"
    at = [values[int(q * (len(values) - 1))] for q in (low, 0.5, 1.0)]
    return ", ".join(f"{value:.3g}" for value in at)
