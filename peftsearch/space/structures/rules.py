"""Rules: forbidden combinations of structures, checked slot by slot."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from peftsearch.space.structures.slot_structure import SlotStructure
from peftsearch.space.structures.slots import Slot

__all__ = ["Rule", "Rules"]

Rule = Mapping[str, Mapping[str, str]]
"""Slot → dimension → value; a structure of which all of it is true is forbidden."""


class Rules:
    """The rules of a space, for walking and counting its structures without listing them.

    A rule is live after some slots have been chosen while everything it says of them is true; one
    that is live after the last slot is broken. Sets of rules are bit masks: what may follow depends
    on the slot and the live rules alone, so that counts are cached by these two. `narrower` are
    structures of the slots that one more rule forbids where nothing but them is chosen.
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
        """Structures for the next slot after `chosen`, each with a valid completion."""
        index, live = len(chosen), self._live(chosen)
        if (index, live) not in self._allowed:
            self._allowed[index, live] = tuple(
                structure
                for structure, met in self._met[index].items()
                if self._count(index + 1, live & met)
            )
        return self._allowed[index, live]

    def are_kept(self, structure: Sequence[SlotStructure]) -> bool:
        """Whether a whole structure is offered, at this depth or a narrower one, and breaks no
        rule.
        """
        offered = all(s in met for s, met in zip(structure, self._met, strict=True))
        return offered and not self._live(structure) & self._stated

    def count(self) -> int:
        """Number of structures that break no rule."""
        return self._count(0, self._every)

    def _count(self, index: int, live: int) -> int:
        """Number of ways to fill the slots from `index` on."""
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
    """Bit mask of the rules whose conditions a structure meets, or that say nothing of its slot."""
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
