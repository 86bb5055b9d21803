"""Which structures may stand together: forbidden conjunctions, followed slot by slot."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from peftsearch.space.structures.slot_structure import SlotStructure
from peftsearch.space.structures.slots import Slot

__all__ = ["Rule", "Rules"]

Rule = Mapping[str, Mapping[str, str]]
"""Slot → dimension → value: forbidden if all of it is true of a structure."""


class Rules:
    """Rules about the slots of a space. A set of rules is a number, a bit for each.

    A rule is live after some slots have been chosen while everything it says of them is true;
    whatever is live after the last slot is broken. `narrower`: structures of all slots that are
    offered somewhere else if nothing but them is chosen.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        rules: Sequence[Rule],
        narrower: Collection[SlotStructure] = (),
    ) -> None:
        self.slots = slots
        self._stated = (1 << len(rules)) - 1
        bit = 1 << len(rules) if narrower else 0
        self._every = self._stated | bit
        self._met: list[dict[SlotStructure, int]] = [
            {
                structure: _met(slot, structure, rules) | (bit if structure in narrower else 0)
                for structure in slot.structures
            }
            for slot in slots
        ]
        self._groups = [_grouped(met) for met in self._met]
        self._counts: dict[tuple[int, int], int] = {}
        self._allowed: dict[tuple[int, int], tuple[SlotStructure, ...]] = {}

    def _live(self, chosen: Sequence[SlotStructure]) -> int:
        live = self._every
        for met, structure in zip(self._met, chosen, strict=False):
            live &= met[structure]
        return live

    def allowed(self, chosen: Sequence[SlotStructure]) -> tuple[SlotStructure, ...]:
        """What the next slot may hold after `chosen`: every completion of it is possible."""
        index, live = len(chosen), self._live(chosen)
        if (index, live) not in self._allowed:
            self._allowed[index, live] = tuple(
                structure
                for structure, met in self._met[index].items()
                if self._count(index + 1, live & met)
            )
        return self._allowed[index, live]

    def are_kept(self, structure: Sequence[SlotStructure]) -> bool:
        """Whether a whole structure is offered, here or narrower, and breaks no rule."""
        offered = all(s in met for s, met in zip(structure, self._met, strict=True))
        return offered and not self._live(structure) & self._stated

    def count(self) -> int:
        """Structures that keep all rules: widths, rates and head left aside."""
        return self._count(0, self._every)

    def _count(self, index: int, live: int) -> int:
        """Ways to fill the slots from `index` on."""
        if not live:
            return math.prod(len(met) for met in self._met[index:])
        if index == len(self.slots):
            return 0
        if (index, live) not in self._counts:
            self._counts[index, live] = sum(
                size * self._count(index + 1, live & met)
                for met, size in self._groups[index].items()
            )
        return self._counts[index, live]


def _met(slot: Slot, structure: SlotStructure, rules: Sequence[Rule]) -> int:
    """The rules that a structure meets, or that say nothing of its slot."""
    return sum(
        1 << bit
        for bit, rule in enumerate(rules)
        if slot.name not in rule or _matches(structure, rule[slot.name])
    )


def _matches(structure: SlotStructure, conditions: Mapping[str, str]) -> bool:
    return all(getattr(structure, dimension) == value for dimension, value in conditions.items())


def _grouped(met: Mapping[SlotStructure, int]) -> dict[int, int]:
    """Rules met → how many structures meet them."""
    groups: dict[int, int] = {}
    for rules in met.values():
        groups[rules] = groups.get(rules, 0) + 1
    return groups
