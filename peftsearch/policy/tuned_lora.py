"""LoRA as a landmark: at three sizes within the space's budgets, with a tuned learning rate.

The rate is tuned at the middle size: three rates of the space's range, each trained to full length.
The other two sizes then have the best of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

from peftsearch.design.form import FORMS
from peftsearch.design.methods import METHODS
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError
from peftsearch.policy.history import History
from peftsearch.policy.seeds import Seed, seed_of
from peftsearch.space.allocate import cost_range
from peftsearch.space.file.seed_method import SeedMethod
from peftsearch.space.file.values import Values
from peftsearch.space.space import Space

__all__ = ["TunedLora"]

_METHOD, _FORM = "lora", "linear"
_MIDDLE, _ENDS = 1 / 2, (1 / 6, 5 / 6)
"""Positions in a range, on a log scale: the middles of its thirds. Of sizes and of rates."""


class TunedLora:
    """LoRA in a space; nothing where the backbone cannot have it. A size that no width fits is left
    out.
    """

    def __init__(self, space: Space, shapes: BackboneShapes) -> None:
        budgets = _budgets(space, shapes)
        lrs = _rates(space.file.train.lr.get(_FORM)) if budgets is not None else []

        def at(position: float, lr: float) -> Seed | None:
            assert budgets is not None
            return _seed(space, _between(*budgets, position), lr, shapes)

        # Cached, and only for the best rate: it takes .05 s a size to find one in `unified`.
        self._ends = cache(lambda lr: tuple(_present(at(position, lr) for position in _ENDS)))
        middles = {lr: at(_MIDDLE, lr) for lr in lrs}
        self._lrs = {seed.label: lr for lr, seed in middles.items() if seed is not None}
        self.rates = tuple(_present(middles.values()))
        """The middle size at each learning rate, the middle rate first."""

    @property
    def is_in_the_space(self) -> bool:
        return any(seed.params is not None for seed in self.rates)

    @property
    def examples(self) -> tuple[Seed, ...]:
        """The configurations to expect, if the middle rate is the best."""
        return tuple(seed for best in self.rates[:1] for seed in (*self.rates, *self._sizes(best)))

    def wanted(self, history: History) -> tuple[Seed, ...]:
        """The configurations to train, given the history: the middle size until every rate has
        ended there, then also the other two.
        """
        if len(self.rates) < 2:  # nothing to wait for
            return self.examples
        ended = {
            record.seed: record
            for record in history.trials
            if record.was_begun and record.has_ended
        }
        tried = [ended.get(seed.label) for seed in self.rates]
        if None in tried:
            return self.rates
        metrics = [-math.inf if one is None or one.metric is None else one.metric for one in tried]
        return (*self.rates, *self._sizes(self.rates[metrics.index(max(metrics))]))

    def _sizes(self, best: Seed) -> tuple[Seed, ...]:
        """The small and the large size, at the rate of `best`."""
        return self._ends(self._lrs[best.label])


def _present(seeds: Iterable[Seed | None]) -> Iterator[Seed]:
    return (seed for seed in seeds if seed is not None)


def _between(low: float, high: float, position: float) -> float:
    """The value at a position between two others on a log scale, rounded to two digits."""
    return float(f"{low * (high / low) ** position:.2g}")


def _budgets(space: Space, shapes: BackboneShapes) -> tuple[float, float] | None:
    """The part of the space's budgets that LoRA reaches, in tuned %; None: it reaches none."""
    try:
        own = [m.within(shapes).with_width(None) for m in METHODS[_METHOD].modifications]
    except ConfigurationError:
        return None
    least, greatest = (100 * n / shapes.body_parameters for n in cost_range(own, shapes))
    budgets = space.file.budgets.tuned_pct
    low, high = max(budgets.low, least), min(budgets.high, greatest)
    return (low, high) if low <= high else None


def _rates(allowed: Values | None) -> list[float]:
    """Three learning rates of the space, or as many as it has, the middle one first."""
    if allowed is None:
        return [FORMS[_FORM].typical_lr]
    positions = (_MIDDLE, *_ENDS)
    if allowed.is_range:
        rates = [_between(allowed.low, allowed.high, position) for position in positions]
    else:
        choices = sorted(float(lr) for lr in allowed.choices)
        rates = [choices[int(position * len(choices))] for position in positions]
    return list(dict.fromkeys(rates))


def _seed(space: Space, tuned_pct: float, lr: float, shapes: BackboneShapes) -> Seed | None:
    stated = {"method": _METHOD, "tuned_pct": tuned_pct, "lr": lr}
    seed = seed_of(space, SeedMethod.model_validate(stated), shapes)
    return None if seed is None else replace(seed, label=f"{seed.label}, lr {lr:g}")
