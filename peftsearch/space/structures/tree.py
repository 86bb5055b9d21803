"""What a space offers: the structures within one depth, walked slot by slot.

A configuration that stays within a narrower depth belongs to that one, where it is offered, and is
not offered in a wider one: none is there twice.
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
    """The slots, as they can be filled within one depth, and what may stand together."""

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
        """What the next slot may hold after `chosen`: every completion of it is possible."""
        return self._rules.allowed(chosen)

    def count(self) -> int:
        """Distinct structures: widths, rates and head left aside."""
        return self._rules.count()

    def walk(self, trial: Suggester) -> Structure:
        structure: Structure = ()
        for slot in self.slots:
            structure = (*structure, slot.walk(trial, self.allowed(structure)))
        return structure

    def contains(self, structure: Structure, kept: frozenset[int]) -> bool:
        """Whether the space allows what is left of a structure without what bought nothing; `kept`
        numbers its filled slots.
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
    """What is offered within each of `depths` on a backbone, the widest first; `slots` are those of
    the backbone. Depths that come to the same layers are one, and one without a structure none.
    """
    names: dict[tuple[int, ...] | None, str] = {}
    for depth in (d for d in DEPTHS if d in depths):
        names.setdefault(layer_mask(depth, shapes), depth)
    found: dict[str, StructureTree[PlacedSlot]] = {}
    narrower: tuple[int, ...] | None = None
    for mask, depth in reversed(names.items()):
        here = slots if mask is None else tuple(slot.cut_to(depth, shapes) for slot in slots)
        tree = StructureTree(here, rules, _inside(here, narrower, shapes) if narrower else ())
        if tree.count():
            found[depth] = tree
            narrower = mask
    return dict(reversed(found.items()))


def _inside(
    slots: tuple[PlacedSlot, ...], layers: tuple[int, ...], shapes: BackboneShapes
) -> set[SlotStructure]:
    """Structures that modify nothing outside some layers."""
    return {NOTHING} | {
        structure
        for slot in slots
        for structure, written in slot.written.items()
        if _stays_within(written, layers, shapes)
    }


def _stays_within(written: Modification, layers: tuple[int, ...], shapes: BackboneShapes) -> bool:
    return all(site.layer in layers for site, _ in written.sources(shapes))
