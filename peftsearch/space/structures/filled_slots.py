"""Filled slots: how many modifications a configuration has and in which slots, chosen first."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from peftsearch.space.file.values import Suggester

__all__ = ["COUNT", "Filled", "FilledSlots", "is_choice_of_slots", "label"]

COUNT = "modifications"
_SLOTS = "slots"

Filled = tuple[str, ...]
"""Names of the slots that hold a modification, in the order of the file."""


def label(filled: Filled) -> str:
    """`attn+ffn`: a choice of slots as a sampler sees it."""
    return "+".join(filled)


def is_choice_of_slots(parameter: str) -> bool:
    """Whether a parameter is `slots.2`, and no dimension of a slot named `slots`."""
    first, _, rest = parameter.partition(".")
    return first == _SLOTS and rest.partition("{")[0].isdecimal()


@dataclass(frozen=True)
class FilledSlots:
    """The choice of a number of modifications by their shares, and then of slots, all sets of
    slots of that number being equally likely. Only sets with a structure are offered.
    """

    shares: Mapping[int, float]
    """Number of modifications → share, relative; numbers that `ways` has not are left out."""
    ways: Mapping[int, Sequence[Filled]]
    """Number of modifications → sets of slots that a structure fills."""
    everywhere: Mapping[int, Sequence[Filled]]
    """The same at whatever depth: a parameter that offers all of them has its plain name."""
    _ends: dict[int, float] = field(init=False, repr=False)
    """Number of modifications → the end of its part of [0, 1]."""

    def __post_init__(self) -> None:
        numbers = sorted(self.shares.keys() & self.ways.keys())
        ends = list(accumulate(self.shares[number] for number in numbers))
        parts = {number: end / ends[-1] for number, end in zip(numbers, ends, strict=True)}
        object.__setattr__(self, "_ends", parts)

    @property
    def all_ways(self) -> list[Filled]:
        """Every set of slots that is offered."""
        return [way for number in self._ends for way in self.ways[number]]

    def choose(self, trial: Suggester) -> Filled:
        """The slots that a trial's suggestions fill."""
        number = self._number(trial)
        ways = self.ways[number]
        if len(ways) == 1:
            return ways[0]
        by_label = {label(way): way for way in ways}
        return by_label[trial.suggest_categorical(self._parameter(number), list(by_label))]

    def middle(self, number: int) -> float | None:
        """The middle of the values of `modifications` that stand for a number; None if none do."""
        if number not in self._ends:
            return None
        numbers = list(self._ends)
        before = numbers.index(number) - 1
        return (self._ends[number] + (self._ends[numbers[before]] if before >= 0 else 0.0)) / 2

    def _number(self, trial: Suggester) -> int:
        numbers, ends = list(self._ends), list(self._ends.values())
        if len(numbers) == 1:
            return numbers[0]
        # A float, cut at the shares: to Optuna the values of a categorical are equally likely.
        value = trial.suggest_float(COUNT, 0.0, 1.0)
        return numbers[min(bisect_right(ends, value), len(numbers) - 1)]

    def _parameter(self, number: int) -> str:
        """`slots.2`, or `slots.2{attn|ffn|body}` where only sets of some slots are offered."""
        # Optuna refuses a categorical parameter whose choices differ between trials.
        ways, every = list(self.ways[number]), self.everywhere[number]
        name = f"{_SLOTS}.{number}"
        if ways == list(every):
            return name
        slots = dict.fromkeys(slot for way in every for slot in way)
        used = [slot for slot in slots if any(slot in way for way in ways)]
        if ways == [way for way in every if set(way) <= set(used)]:
            return f"{name}{{{'|'.join(used)}}}"
        return f"{name}{{{'|'.join(map(label, ways))}}}"
