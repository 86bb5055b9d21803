"""Optuna's suggestions → Configuration: depth, structure, budget, shares, widths, rates, head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import FORMS
from peftsearch.design.modification import Modification
from peftsearch.design.shapes import BackboneShapes
from peftsearch.space.allocate import Allocation, allocate, allocate_all
from peftsearch.space.file.train_choices import ALWAYS
from peftsearch.space.file.values import Suggester, Values
from peftsearch.space.placed import PlacedSpace
from peftsearch.space.structures.slot_structure import make_composition
from peftsearch.space.structures.slots import PlacedSlot
from peftsearch.space.structures.tree import Structure, StructureTree

__all__ = ["BUDGET", "DEPTH", "Sample", "decode", "walk"]

BUDGET = "tuned_pct"
DEPTH = "depth"


@dataclass(frozen=True)
class Sample:
    """A decoded trial: a configuration, or a structure of which nothing fits the budget."""

    structure: Structure
    configuration: Configuration | None
    budget_pct: float | None
    """In percent of the backbone's body; None where nothing has a width: the cost is fixed."""
    log_excess: float = 0.0
    """log(least cost / budget), above 0 where nothing fits: the sampler's constraint."""
    depth: str = "all"
    """The layers that its structure stays within."""


def decode(placed: PlacedSpace, trial: Suggester) -> Sample:
    """Walk a space with a trial's suggestions. The same suggestions give the same sample.

    >>> placed = load_space("lora-only").on(load_shapes("config:bert-base"))
    >>> sample = decode(placed, RandomSuggestions(0))
    >>> sample.configuration.tuned_pct(placed.shapes) <= sample.budget_pct
    True
    """
    shapes = placed.shapes
    depth, structure = walk(placed, trial)
    tree = placed.by_depth[depth]
    open_modifications = _modifications(trial, tree, structure)
    head = _head(placed, trial)
    pooler = head.pooler_parameters(shapes.hidden) if head.pooler_counts else 0
    budget_pct, allocation = _solve(placed, trial, tree, structure, open_modifications, pooler)
    if not allocation.fits:
        assert budget_pct is not None
        budget = max(1, _parameters(budget_pct, shapes))
        excess = math.log((allocation.cost + pooler) / budget)
        # To Optuna's samplers a constraint is violated above 0, and at 0 it is kept.
        return Sample(structure, None, budget_pct, max(excess, 1e-9), depth)
    training = _training(placed, trial, allocation.modifications)
    configuration = Configuration(allocation.modifications, head, training)
    return Sample(structure, configuration.within(shapes), budget_pct, depth=depth)


def walk(placed: PlacedSpace, trial: Suggester) -> tuple[str, Structure]:
    """A depth, and a structure of that depth."""
    depth = str(Values(tuple(placed.by_depth)).suggest(trial, DEPTH))
    return depth, placed.by_depth[depth].walk(trial)


def _modifications(
    trial: Suggester, tree: StructureTree[PlacedSlot], structure: Structure
) -> list[Modification]:
    """Modifications of the filled slots, widths open."""
    modifications = []
    for slot, filled in zip(tree.slots, structure, strict=True):
        if filled.is_empty:
            continue
        number = slot.choices.number_of(filled.composition)
        scale = number and number[1].suggest(trial, f"{slot.name}.{number[0]}")
        composition = make_composition(filled.composition, scale)
        modifications.append(replace(slot.written[filled], composition=composition))
    return modifications


def _head(placed: PlacedSpace, trial: Suggester) -> Head:
    """The head. A pooler that is a choice counts as tuned; a fixed one belongs to the head."""
    choices = placed.file.head
    pooler = choices.pooler.suggest(trial, "head.pooler")
    pooling = choices.pooling.suggest(trial, "head.pooling")
    return Head(pooling, pooler, pooler_counts=not choices.pooler.is_fixed)


def _solve(
    placed: PlacedSpace,
    trial: Suggester,
    tree: StructureTree[PlacedSlot],
    structure: Structure,
    modifications: list[Modification],
    pooler: int,
) -> tuple[float | None, Allocation]:
    """The suggested budget in percent, None where nothing has a width, and the widths it buys."""
    shapes = placed.shapes
    names = [s.name for s, one in zip(tree.slots, structure, strict=True) if not one.is_empty]
    with_width = [n for n, m in zip(names, modifications, strict=True) if m.has_width]
    if not with_width:
        total = sum(m.parameters(shapes) for m in modifications)
        return None, allocate(modifications, [], total, shapes)
    budget_pct = float(placed.file.budgets.tuned_pct.suggest(trial, BUDGET))
    shares = _break_stick(trial, with_width)
    budget = _parameters(budget_pct, shapes) - pooler
    allocation = allocate(modifications, shares, budget, shapes)
    # Without the slots whose shares bought nothing it may be a structure that is forbidden.
    if allocation.fits and not tree.contains(structure, allocation.kept):
        allocation = allocate_all(modifications, budget, shapes)
    return budget_pct, allocation


def _training(
    placed: PlacedSpace, trial: Suggester, modifications: Sequence[Modification]
) -> Training:
    rules = placed.file.train
    forms = sorted({m.form.name for m in modifications})
    rates = tuple(
        (form, float(rules.lr[form].suggest(trial, f"lr.{form}")))
        for form in forms
        if form in rules.lr
    )
    keys = (*ALWAYS, *(["up_lr_ratio"] if any(FORMS[form].fast for form in forms) else []))
    return Training(lr=rates, **{key: rules.suggest(trial, key) for key in keys})


def _parameters(pct: float, shapes: BackboneShapes) -> int:
    """Whole parameters in a percentage of the body."""
    # 1e-6: a product that is whole but for rounding is that whole number.
    return int(pct / 100 * shapes.body_parameters + 1e-6)


def _break_stick(trial: Suggester, slots: Sequence[str]) -> list[float]:
    """Shares of the budget, which sum to 1. Each parameter `share.SLOT` is a part of what is still
    left, and the last slot takes the rest: one parameter fewer than slots, and every value valid.
    """
    shares: list[float] = []
    left = 1.0
    for slot in slots[:-1]:
        part = trial.suggest_float(f"share.{slot}", 0.0, 1.0) * left
        shares.append(part)
        left -= part
    return [*shares, left]
