"""Allocating a parameter budget: `allocate` solves for the widths that fit it.

The cost never exceeds the budget; a remainder widens the upper layers, in whole units. The result
is a function of the modifications, the shares and the budget alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from peftsearch.design.composition import Add, Dora, RankStabilised, Scaled
from peftsearch.design.modification import Modification
from peftsearch.design.shapes import BackboneShapes

__all__ = ["Allocation", "allocate", "allocate_all", "cost_range"]


@dataclass(frozen=True)
class Allocation:
    """Solved modifications and their cost, or, if nothing fits, no modifications and the least
    cost of the structure.
    """

    modifications: tuple[Modification, ...]
    cost: int
    fits: bool = True
    kept: frozenset[int] = frozenset()
    """Indices of the requested modifications that are among them."""


@dataclass(frozen=True)
class LayerCosts:
    """Parameters that a modification costs: `shared` once, and in each layer a fixed number and a
    number for each unit of width.

    Embeddings and tensors of the body are one layer named None. Every form's cost is linear in its
    width.
    """

    layers: tuple[int | None, ...]
    each: tuple[tuple[int, int], ...]
    """(fixed, a unit of width) of each layer."""
    shared: int
    maximum: int
    """The greatest width."""


@lru_cache(maxsize=4096)
def layer_costs(modification: Modification, shapes: BackboneShapes) -> LayerCosts:
    """The costs of a modification whose width is open."""
    # Two widths determine a linear cost; one layer at a time, as layers may differ in size.
    least = modification.minimum_width
    sources = modification.sources(shapes)
    maximum = modification.maximum_width(shapes)
    layers = modification.place.layers_in(shapes)
    if not layers:
        one, two = (modification.with_width(w).parameters(shapes) for w in (least, least + 1))
        return LayerCosts((None,), ((one - least * (two - one), two - one),), 0, maximum)
    shared = sum(map(prod, modification.form.shared(sources, least).values()))
    each = []
    for layer in layers:
        on_layer = modification.on((layer,))
        one, two = (on_layer.with_width(w).parameters(shapes) for w in (least, least + 1))
        each.append((one - shared - least * (two - one), two - one))
    return LayerCosts(layers, tuple(each), shared, maximum)


def _without_number(modification: Modification) -> Modification:
    """The modification without its scale, which costs nothing unless it is learned: the cache of
    `layer_costs` then has one entry for all scales.
    """
    composition = modification.composition
    if isinstance(composition, RankStabilised) or (
        isinstance(composition, Scaled) and composition.s != "learned"
    ):
        return replace(modification, composition=Add())
    return (
        replace(modification, composition=Dora()) if isinstance(composition, Dora) else modification
    )


class _Item:
    """One modification with a width: its costs, and the widths bought for it so far."""

    def __init__(
        self,
        modification: Modification,
        share: float,
        shapes: BackboneShapes,
        original: Modification | None = None,
    ) -> None:
        """`original` is the modification before it was thinned."""
        self.modification, self.share, self.shapes = modification, share, shapes
        self.original = original or modification
        self.minimum = modification.minimum_width
        costs = layer_costs(_without_number(modification), shapes)
        self.maximum = max(self.minimum, costs.maximum)
        self.layers, self.shared = costs.layers, costs.shared
        self._costs = dict(zip(costs.layers, costs.each, strict=True))
        self.units = [unit for _, unit in costs.each]
        self.fixed = self.shared + sum(fixed for fixed, _ in costs.each)
        self.widths = [0] * len(self.layers)

    @property
    def least(self) -> int:
        """The cost of the minimum width in every layer."""
        return self.fixed + self.minimum * sum(self.units)

    @property
    def least_layer(self) -> int:
        """The cost of the minimum width in its cheapest layer alone."""
        return self.shared + min(f + self.minimum * u for f, u in self._costs.values())

    @property
    def cost(self) -> int:
        return self.fixed + sum(w * u for w, u in zip(self.widths, self.units, strict=True))

    def fill(self, amount: float) -> None:
        """Set the largest common width that `amount` buys, within bounds."""
        # 1e-9: a quotient that is whole but for rounding is that whole number.
        width = int((amount - self.fixed) / sum(self.units) + 1e-9)
        self.widths = [min(max(width, self.minimum), self.maximum)] * len(self.layers)

    @property
    def is_full(self) -> bool:
        return min(self.widths) >= self.maximum

    def widen(self, left: int) -> int:
        """Spend `left` parameters: whole units on all layers, then one each from the top. Returns
        the remainder.
        """
        every = min(left // sum(self.units), self.maximum - max(self.widths))
        if every > 0:
            self.widths = [w + every for w in self.widths]
            left -= every * sum(self.units)
        for index in reversed(range(len(self.widths) if len(self.widths) > 1 else 0)):
            if self.units[index] > left or self.widths[index] >= self.maximum:
                break
            self.widths[index] += 1
            left -= self.units[index]
        return left

    def thinned(self, budget: int) -> _Item | None:
        """The item on as many upper layers as the budget buys at the least width; None if none."""
        keep = 0
        spent = self.shared
        for layer in reversed(self.layers):
            fixed, unit = self._costs[layer]
            spent += fixed + self.minimum * unit
            if spent > budget:
                break
            keep += 1
        if keep == 0:
            return None
        kept = tuple(layer for layer in self.layers[len(self.layers) - keep :] if layer is not None)
        if not kept:
            return self
        return _Item(self.modification.on(kept), self.share, self.shapes, self.original)

    def solved(self) -> Modification:
        """The modification with its widths, and its layers named if it was thinned."""
        return self.modification.with_width(tuple(self.widths)).within(self.shapes)


def allocate(
    modifications: Sequence[Modification],
    shares: Sequence[float],
    budget: int,
    shapes: BackboneShapes,
) -> Allocation:
    """Solve the widths of `modifications` for `budget` parameters.

    `shares` (summing to 1) belong to the modifications that have a width, in order; those without
    are paid first, the most expensive left out while the budget is too small for them and the
    cheapest layer of one with a width. A share that buys less than the minimum width passes on to
    the others, as does the surplus of one that has reached its maximum.

    >>> shapes = load_shapes("config:bert-base")  # a rank of LoRA at q and v costs 36,864 there
    >>> (lora,) = METHODS["lora"].modifications
    >>> allocate([lora.with_width(None)], [1.0], 8 * 36_864, shapes).modifications[0].width
    8
    """
    with_width = [m for m in modifications if m.has_width]
    items = [_Item(m, s, shapes) for m, s in zip(with_width, shares, strict=True)]
    paid = {m: m.parameters(shapes) for m in modifications if not m.has_width}
    if not items:
        return Allocation(tuple(paid), sum(paid.values()), kept=frozenset(range(len(paid))))
    least = min(item.least_layer for item in items)
    while paid and sum(paid.values()) + least > budget:
        del paid[max(paid, key=paid.__getitem__)]
    left = budget - sum(paid.values())
    kept = _drop_unaffordable(items, left)
    if kept[0].least > left:
        thinned = kept[0].thinned(left)
        if thinned is None:
            return Allocation((), sum(paid.values()) + kept[0].least_layer, fits=False)
        kept[0] = thinned
    _fill(kept, left)
    left -= sum(item.cost for item in kept)
    if all(item.is_full for item in kept):
        originals = [item.original for item in kept]
        kept += _restored(
            [i for i in items if not any(i.original is one for one in originals)], left
        )
    solved = (*paid, *(item.solved() for item in kept))
    taken = {id(m) for m in (*paid, *(item.original for item in kept))}
    return Allocation(
        modifications=solved,
        cost=sum(paid.values()) + sum(item.cost for item in kept),
        kept=frozenset(i for i, m in enumerate(modifications) if id(m) in taken),
    )


def allocate_all(
    modifications: Sequence[Modification], budget: int, shapes: BackboneShapes
) -> Allocation:
    """`allocate` where no modification may be left out: shares in proportion to minimum costs.
    Nothing fits if one of them does not.
    """
    least = [m.with_width(m.minimum_width).parameters(shapes) for m in modifications if m.has_width]
    total = sum(least) + sum(m.parameters(shapes) for m in modifications if not m.has_width)
    if total > budget:
        return Allocation((), total, fits=False)
    return allocate(modifications, [cost / sum(least) for cost in least], budget, shapes)


def _restored(dropped: list[_Item], left: int) -> list[_Item]:
    """Dropped items that `left`, the surplus of the others, buys after all; largest share first."""
    taken = []
    for item in sorted(dropped, key=lambda i: (-i.share, i.modification.describe())):
        fitting = item if item.least <= left else item.thinned(left)
        if fitting is not None:
            _fill([fitting], left)
            left -= fitting.cost
            taken.append(fitting)
    return taken


def _drop_unaffordable(items: list[_Item], budget: int) -> list[_Item]:
    """The items whose shares buy at least their minimum widths. The others are dropped, worst
    first, and their shares pass on.
    """
    kept = list(items)
    while len(kept) > 1:
        total = sum(item.share for item in kept)
        worst = min(kept, key=lambda i: _part(i, total, len(kept)) * budget / i.least)
        if _part(worst, total, len(kept)) * budget + 1e-6 >= worst.least:
            break
        kept.remove(worst)
    return kept


def _part(item: _Item, total: float, count: int) -> float:
    return item.share / total if total > 0 else 1 / count


def _fill(items: list[_Item], budget: int) -> None:
    """Set widths by share; the surplus of an item at its maximum passes on; the remainder is spent
    in whole units, greedily.
    """
    open_items, left = list(items), budget
    while open_items:
        total = sum(item.share for item in open_items)
        for item in open_items:
            item.fill(_part(item, total, len(open_items)) * left + 1e-6)
        capped = [item for item in open_items if item.is_full]
        if not capped or len(capped) == len(open_items):
            break
        open_items = [item for item in open_items if not item.is_full]
        left -= sum(item.cost for item in capped)
    left = budget - sum(item.cost for item in items)
    # Dearest units first; ties go by description, so that the order of the items does not matter.
    for item in sorted(items, key=lambda i: (-sum(i.units), i.modification.describe())):
        left = item.widen(left)


def cost_range(modifications: Sequence[Modification], shapes: BackboneShapes) -> tuple[int, int]:
    """(least, greatest) cost in parameters of a structure over all budgets that fit it."""
    paid = sum(m.parameters(shapes) for m in modifications if not m.has_width)
    items = [_Item(m, 0.5, shapes) for m in modifications if m.has_width]
    if not items:
        return paid, paid
    least = min(item.least_layer for item in items)
    greatest = sum(i.fixed + i.maximum * sum(i.units) for i in items)
    return paid + least, paid + greatest
