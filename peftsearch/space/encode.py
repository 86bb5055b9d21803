"""Configuration → search parameters: the exact inverse of `decode`.

`decode` itself asks for the parameters; the answers are read off the configuration, and the result
is compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from peftsearch.design.composition import RankStabilised
from peftsearch.design.configuration import Configuration
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError
from peftsearch.space.decode import BUDGET, DEPTH, decode
from peftsearch.space.placed import PlacedSpace
from peftsearch.space.structures.filled_slots import COUNT, is_choice_of_slots, label
from peftsearch.space.structures.slot_structure import NOTHING, SlotStructure
from peftsearch.space.structures.slots import PlacedSlot
from peftsearch.space.structures.tree import Structure, StructureTree

__all__ = ["NotExpressible", "Replay", "encode"]


class NotExpressible(ConfigurationError):
    """The space does not contain the configuration."""


def encode(placed: PlacedSpace, configuration: Configuration) -> dict[str, Any]:
    """Parameters with which `decode` gives exactly `configuration`, by their names in Optuna.
    NotExpressible if there are none; ConfigurationError if the backbone cannot take it.

    >>> placed = load_space("lora-only").on(load_shapes("config:bert-base"))
    >>> sample = decode(placed, RandomSuggestions(0))
    >>> params = encode(placed, sample.configuration)
    >>> decode(placed, Replay(params)).configuration == sample.configuration
    True
    """
    shapes = placed.shapes
    configuration = configuration.within(shapes)
    for depth, tree in reversed(placed.by_depth.items()):  # the narrowest that it stays within
        for structure in _structures(tree, configuration, shapes):
            answers = _Answers(tree, depth, configuration, structure, shapes)
            try:
                sample = decode(placed, answers)
            except ConfigurationError:
                continue
            if sample.configuration == configuration:
                return answers.given
    raise NotExpressible(f"space '{placed.name}' does not contain '{configuration.describe()}'")


@dataclass
class Replay:
    """A stand-in for an Optuna trial whose suggestions are `params`. NotExpressible for one that is
    missing or out of range.
    """

    params: Mapping[str, Any]

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return self._checked(name, self.params.get(name) in choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        value = self.params.get(name)
        return float(self._checked(name, value is not None and low <= value <= high))

    def _checked(self, name: str, fits: bool) -> Any:
        if name not in self.params:
            raise NotExpressible(f"parameter '{name}' is missing")
        if not fits:
            raise NotExpressible(f"parameter '{name}' = {self.params[name]} is out of range")
        return self.params[name]


@dataclass
class _Answers:
    """A stand-in for an Optuna trial that reads each suggestion off a configuration and keeps it.
    NotExpressible for a value that is not offered.
    """

    tree: StructureTree[PlacedSlot]
    depth: str
    configuration: Configuration
    structure: Structure
    shapes: BackboneShapes
    given: dict[str, Any] = field(default_factory=dict)

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return self._give(name, self._answer(name), lambda value: value in choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        value = self._answer(name)
        if name == BUDGET:  # a thinned structure may cost less than the least budget that gives it
            value = min(max(value, low), high)
        return float(self._give(name, value, lambda v: _is_number(v) and low <= v <= high))

    def _give(self, name: str, value: Any, fits: Any) -> Any:
        if not fits(value):
            raise NotExpressible(f"parameter '{name}' cannot be {value}")
        self.given[name] = value
        return value

    def _answer(self, name: str) -> Any:
        training, head = self.configuration.training, self.configuration.head
        if name == BUDGET:
            return self.configuration.tuned_pct(self.shapes)
        if name == DEPTH:
            return self.depth
        if self.tree.filled_slots and (name == COUNT or is_choice_of_slots(name)):
            filled = self.tree.filled_by(self.structure)
            chosen = self.tree.filled_slots
            return chosen.middle(len(filled)) if name == COUNT else label(filled)
        first, _, rest = name.partition(".")
        if first == "lr":
            return training.lr_of(rest)
        if first == "share":
            return self._share(rest)
        if first == "head":
            return getattr(head, rest)
        if not rest:
            return getattr(training, name)
        return self._of_slot(*name.rsplit(".", 1) if "{" not in name else _split_options(name))

    def _of_slot(self, slot: str, dimension: str) -> Any:
        index = [s.name for s in self.tree.slots].index(slot)
        if dimension in ("s", "alpha", "dora_s"):
            modification = self._modification(slot)
            return _number(modification, dimension) if modification else None
        return getattr(self.structure[index], dimension)

    def _share(self, slot: str) -> float:
        """This slot's cost as a share of those of it and the slots after it: the inverse of
        `decode`'s stick-breaking.
        """
        names = [s.name for s in self.tree.slots]
        costs = {name: self._cost(name) for name in names[names.index(slot) :]}
        total = sum(costs.values())
        return costs[slot] / total if total else 0.0

    def _cost(self, slot: str) -> int:
        modification = self._modification(slot)
        has_width = modification is not None and modification.has_width
        return modification.parameters(self.shapes) if modification and has_width else 0

    def _modification(self, slot: str) -> Modification | None:
        index = [s.name for s in self.tree.slots].index(slot)
        filled = self.structure[index]
        for modification in self.configuration.modifications:
            if _fills(self.tree.slots[index], filled, modification, self.shapes):
                return modification
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _split_options(name: str) -> tuple[str, str]:
    slot, dimension = name.split("{", 1)[0].rsplit(".", 1)
    return slot, dimension


def _structures(
    tree: StructureTree[PlacedSlot], configuration: Configuration, shapes: BackboneShapes
) -> Iterator[Structure]:
    """Every way to distribute a configuration's modifications over the slots."""
    options = []
    for slot in tree.slots:
        filled = [
            structure
            for structure in slot.structures
            if not structure.is_empty
            and any(_fills(slot, structure, m, shapes) for m in configuration.modifications)
        ]
        options.append(filled or [NOTHING])
    for structure in product(*options):
        if sum(not s.is_empty for s in structure) == len(configuration.modifications):
            yield structure


def _fills(
    slot: PlacedSlot, structure: SlotStructure, modification: Modification, shapes: BackboneShapes
) -> bool:
    """Whether a slot's structure could have given a modification (its layers may be fewer)."""
    if structure.is_empty:
        return False
    if structure.form != modification.form.name or not _composed_alike(structure, modification):
        return False
    offered = slot.written[structure]
    return (
        offered.form == modification.form
        and offered.insertion == modification.insertion
        and _within(modification.place, offered.place, shapes)
    )


def _within(place: Place, offered: Place, shapes: BackboneShapes) -> bool:
    """Whether a place is the offered one, or that one in fewer layers."""
    sites, whole = place.sites(shapes), set(offered.sites(shapes))
    layers = place.layers_in(shapes)
    kept = {site for site in whole if site.layer in layers} if layers else whole
    return set(sites) == kept


def _composed_alike(structure: SlotStructure, modification: Modification) -> bool:
    """Whether the compositions agree. With one width for all layers α/√r is a number, and a
    rank-stabilised scale is written as `scaled` or `add`.
    """
    name = modification.composition.name
    if structure.composition == name:
        return True
    uniform = isinstance(modification.width, int)
    return structure.composition == "rank_stabilised" and uniform and name in ("add", "scaled")


def _number(modification: Modification, dimension: str) -> Any:
    """s, or the α that gives exactly the scale of a rank-stabilised composition."""
    composition = modification.composition
    if isinstance(composition, RankStabilised):
        return composition.alpha
    s = getattr(composition, "s", 1.0)
    if dimension != "alpha" or s == "learned":
        return s
    alpha = s * math.sqrt(modification.widest)
    # s → α → s may be off by one unit in the last place: the neighbour that gives exactly s.
    near = (alpha, math.nextafter(alpha, math.inf), math.nextafter(alpha, 0))
    return next((a for a in near if a / math.sqrt(modification.widest) == s), alpha)
