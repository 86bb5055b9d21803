"""Structures of a whole configuration, as a tree of choices: slot by slot, for each depth.

Each structure is offered at one depth only: one that stays within a narrower depth is offered there
and left out of the wider ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Generic, TypeVar

from peftsearch.design.modification import Modification
from peftsearch.design.shapes import BackboneShapes
from peftsearch.space.file.values import Suggester
from peftsearch.space.layer_masks import DEPTHS, layer_mask
from peftsearch.space.structures.filled_slots import Filled, FilledSlots
from peftsearch.space.structures.rules import Rule, Rules
from peftsearch.space.structures.slot_structure import NOTHING, SlotStructure
from peftsearch.space.structures.slots import PlacedSlot, Slot

__all__ = ["Structure", "StructureTree", "trees_by_depth"]

Structure = tuple[SlotStructure, ...]
"""One structure a slot, in the order of the file."""
S = TypeVar("S", bound=Slot, covariant=True)


class StructureTree(Generic[S]):
    """The structures that slots and rules allow. `narrower` are structures of slots that a narrower
    depth has: a structure made of these alone is not offered here. `shares`, where given, are the
    numbers of modifications that a structure may have, with their shares of samples; `whole` is
    then the tree without a depth.
    """

    def __init__(
        self,
        slots: tuple[S, ...],
        rules: Sequence[Rule],
        narrower: Collection[SlotStructure] = (),
        shares: Mapping[int, float] | None = None,
        whole: StructureTree[S] | None = None,
    ) -> None:
        self.slots, self.shares = slots, shares
        self.rules, self._narrower = tuple(rules), narrower
        self._whole = whole

    @cached_property
    def _rules(self) -> Rules:
        return Rules(self.slots, self.rules, self._narrower)

    @cached_property
    def filled_slots(self) -> FilledSlots | None:
        """The choice of the slots to fill; None where each slot chooses for itself."""
        if self.shares is None:
            return None
        names = [slot.name for slot in self.slots]
        ways: dict[int, list[Filled]] = {}
        for number in self.shares:
            for filled in combinations(names, number):
                if self._rules.count(filled):
                    ways.setdefault(number, []).append(filled)
        whole = self._whole and self._whole.filled_slots
        return FilledSlots(self.shares, ways, whole.ways if whole else ways)

    def allowed(self, chosen: Structure, filled: Filled | None = None) -> tuple[SlotStructure, ...]:
        """Structures for the next slot after `chosen`, each with a valid completion that fills the
        slots of `filled`, if given, and no others.
        """
        return self._rules.allowed(chosen, filled)

    def count(self) -> int:
        """Number of distinct structures, without counting widths, rates and heads."""
        if self.filled_slots is None:
            return self._rules.count()
        return sum(self._rules.count(filled) for filled in self.filled_slots.all_ways)

    def walk(self, trial: Suggester) -> Structure:
        """The structure that a trial's suggestions choose."""
        filled = self.filled_slots.choose(trial) if self.filled_slots else None
        structure: Structure = ()
        for slot in self.slots:
            allowed = self.allowed(structure, filled)
            structure = (*structure, slot.walk(trial, allowed, is_filled=filled is not None))
        return structure

    def filled_by(self, structure: Structure) -> Filled:
        """The slots in which a structure holds a modification."""
        filled = zip(self.slots, structure, strict=True)
        return tuple(slot.name for slot, one in filled if not one.is_empty)

    def contains(self, structure: Structure, kept: frozenset[int]) -> bool:
        """Whether a structure is still allowed when only some of its filled slots are kept; `kept`
        are their indices among the filled ones.
        """
        filled = [i for i, s in enumerate(structure) if not s.is_empty]
        stays = {filled[i] for i in kept}
        left = tuple(s if i in stays else NOTHING for i, s in enumerate(structure))
        if left == structure:
            return True
        return (self.shares is None or len(stays) in self.shares) and self._rules.are_kept(left)


def trees_by_depth(
    whole: StructureTree[PlacedSlot], depths: Collection[str], shapes: BackboneShapes
) -> dict[str, StructureTree[PlacedSlot]]:
    """The tree without a depth, `whole`, cut to each of `depths`, the widest first. Of depths that
    are the same layers on this backbone one is kept; one without a structure of its own is left
    out.
    """
    names: dict[tuple[int, ...] | None, str] = {}
    for depth in (d for d in DEPTHS if d in depths):
        names.setdefault(layer_mask(depth, shapes), depth)
    found: dict[str, StructureTree[PlacedSlot]] = {}
    narrower: tuple[int, ...] | None = None
    # The narrowest first: a wider depth leaves out what the next narrower one has.
    for mask, depth in reversed(names.items()):
        here = whole.slots
        if mask is not None:
            here = tuple(slot.restricted_to(depth, shapes) for slot in here)
        inside = _inside(here, narrower, shapes) if narrower else ()
        tree = StructureTree(here, whole.rules, inside, whole.shares, whole)
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
