"""Rules: forbidden combinations of structures, checked slot by slot."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from peftsearch.space.structures.filled_slots import Filled
from peftsearch.space.structures.slot_structure import SlotStructure
from peftsearch.space.structures.slots import Slot

__all__ = ["Rule", "Rules"]

Rule = Mapping[str, Mapping[str, str]]
"""Slot → dimension → value; a structure of which all of it is true is forbidden."""
_Fills = tuple[bool | None, ...]
"""Whether each of the slots that are left holds a modification; None: it may or may not."""


class Rules:
    """The rules of a space, for walking and counting its structures without listing them.

    A rule is live after some slots have been chosen while everything it says of them is true; one
    that is live after the last slot is broken. Sets of rules are bit masks: what may follow depends
    on the slot, the live rules and, where it is given, the slots to be filled alone, so that counts
    are cached by these. `narrower` are structures of the slots that one more rule forbids where
    nothing but them is chosen.
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
        self._groups = [
            {fills: _grouped(met, fills) for fills in (None, True, False)} for met in self._met
        ]
        self._counts: dict[tuple[int, int, _Fills], int] = {}
        self._allowed: dict[tuple[int, int, _Fills], tuple[SlotStructure, ...]] = {}

    def _live(self, chosen: Sequence[SlotStructure]) -> int:
        live = self._every
        for met, structure in zip(self._met, chosen, strict=False):
            live &= met[structure]
        return live

    def allowed(
        self, chosen: Sequence[SlotStructure], filled: Filled | None = None
    ) -> tuple[SlotStructure, ...]:
        """Structures for the next slot after `chosen`, each with a valid completion that fills the
        slots of `filled` and no others.
        """
        index, live, fills = len(chosen), self._live(chosen), self._fills(filled)[len(chosen) :]
        key = (index, live, fills)
        if key not in self._allowed:
            self._allowed[key] = tuple(
                structure
                for structure, met in self._met[index].items()
                if fills[0] in (None, not structure.is_empty)
                and self._count(index + 1, live & met, fills[1:])
            )
        return self._allowed[key]

    def are_kept(self, structure: Sequence[SlotStructure]) -> bool:
        """Whether a whole structure is offered, at this depth or a narrower one, and breaks no
        rule.
        """
        offered = all(s in met for s, met in zip(structure, self._met, strict=True))
        return offered and not self._live(structure) & self._stated

    def count(self, filled: Filled | None = None) -> int:
        """Number of structures that break no rule; those alone that fill the slots of `filled`."""
        return self._count(0, self._every, self._fills(filled))

    def _fills(self, filled: Filled | None) -> _Fills:
        return tuple(None if filled is None else slot.name in filled for slot in self.slots)

    def _count(self, index: int, live: int, fills: _Fills) -> int:
        """Number of ways to fill the slots from `index` on."""
        if not live:
            rest = zip(self._groups[index:], fills, strict=True)
            return math.prod(sum(groups[fill].values()) for groups, fill in rest)
        if index == len(self.slots):
            return 0
        key = (index, live, fills)
        if key not in self._counts:
            self._counts[key] = sum(
                size * self._count(index + 1, live & met, fills[1:])
                for met, size in self._groups[index][fills[0]].items()
            )
        return self._counts[key]


def _met(slot: Slot, structure: SlotStructure, rules: Sequence[Rule]) -> int:
    """Bit mask of the rules whose conditions a structure meets, or that say nothing of its slot."""
    return sum(
        1 << bit
        for bit, rule in enumerate(rules)
        if slot.name not in rule or _matches(structure, rule[slot.name])
    )


def _matches(structure: SlotStructure, conditions: Mapping[str, str]) -> bool:
    return all(getattr(structure, dimension) == value for dimension, value in conditions.items())


def _grouped(met: Mapping[SlotStructure, int], fills: bool | None) -> dict[int, int]:
    """Rules met → how many structures meet them; only structures that fill the slot, or leave it
    empty, if `fills` says so.
    """
    groups: dict[int, int] = {}
    for structure, rules in met.items():
        if fills in (None, not structure.is_empty):
            groups[rules] = groups.get(rules, 0) + 1
    return groups
