"""Structures of a whole configuration, as a tree of choices: slot by slot, for each depth.

Each structure is offered at one depth only: one that stays within a narrower depth is offered there
and left out of the wider ones.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Generic, TypeVar

from peftsearch.design.modification import Modification
from peftsearch.design.shapes import BackboneShapes
from peftsearch.space.file.values import Suggester
from peftsearch.space.layer_masks import DEPTHS, layer_mask
from peftsearch.space.structures.rules import Rule, Rules
from peftsearch.space.structures.slot_structure import NOTHING, SlotStructure
from peftsearch.space.structures.slots import PlacedSlot, Slot

__all__ = ["Structure", "StructureTree", "trees_by_depth"]

Structure = tuple[SlotStructure, ...]
"""One structure a slot, in the order of the file."""
S = TypeVar("S", bound=Slot, covariant=True)


class StructureTree(Generic[S]):
    """The structures that slots and rules allow. `narrower` are structures of slots that a narrower
    depth has: a structure made of these alone is not offered here.
    """

    def __init__(
        self,
        slots: tuple[S, ...],
        rules: Sequence[Rule],
        narrower: Collection[SlotStructure] = (),
    ) -> None:
        self.slots = slots
        self.rules, self._narrower = tuple(rules), narrower

    @cached_property
    def _rules(self) -> Rules:
        return Rules(self.slots, self.rules, self._narrower)

    def allowed(self, chosen: Structure) -> tuple[SlotStructure, ...]:
        """Structures for the next slot after `chosen`, each with a valid completion."""
        return self._rules.allowed(chosen)

    def count(self) -> int:
        """Number of distinct structures, without counting widths, rates and heads."""
        return self._rules.count()

    def walk(self, trial: Suggester) -> Structure:
        """The structure that a trial's suggestions choose."""
        structure: Structure = ()
        for slot in self.slots:
            structure = (*structure, slot.walk(trial, self.allowed(structure)))
        return structure

    def contains(self, structure: Structure, kept: frozenset[int]) -> bool:
        """Whether a structure is still allowed when only some of its filled slots are kept; `kept`
        are their indices among the filled ones.
        """
        filled = [i for i, s in enumerate(structure) if not s.is_empty]
        stays = {filled[i] for i in kept}
        left = tuple(s if i in stays else NOTHING for i, s in enumerate(structure))
        return left == structure or self._rules.are_kept(left)


def trees_by_depth(
    slots: tuple[PlacedSlot, ...],
    depths: Collection[str],
    rules: Sequence[Rule],
    shapes: BackboneShapes,
) -> dict[str, StructureTree[PlacedSlot]]:
    """A tree for each of `depths`, the widest first. Of depths that are the same layers on this
    backbone one is kept; a depth without a structure of its own is left out.
    """
    names: dict[tuple[int, ...] | None, str] = {}
    for depth in (d for d in DEPTHS if d in depths):
        names.setdefault(layer_mask(depth, shapes), depth)
    found: dict[str, StructureTree[PlacedSlot]] = {}
    narrower: tuple[int, ...] | None = None
    # The narrowest first: a wider depth leaves out what the next narrower one has.
    for mask, depth in reversed(names.items()):
        here = slots if mask is None else tuple(slot.restricted_to(depth, shapes) for slot in slots)
        tree = StructureTree(here, rules, _inside(here, narrower, shapes) if narrower else ())
        if tree.count():
            found[depth] = tree
            narrower = mask
    return dict(reversed(found.items()))


def _inside(
    slots: tuple[PlacedSlot, ...], layers: tuple[int, ...], shapes: BackboneShapes
) -> set[SlotStructure]:
    """Structures of the slots that modify nothing outside `layers`."""
    return {NOTHING} | {
        structure
        for slot in slots
        for structure, written in slot.written.items()
        if _stays_within(written, layers, shapes)
    }


def _stays_within(written: Modification, layers: tuple[int, ...], shapes: BackboneShapes) -> bool:
    return all(site.layer in layers for site, _ in written.sources(shapes))
