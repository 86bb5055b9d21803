"""Slots: named groups of places, and the structures that may fill each.

Invalid and duplicate combinations are never offered. A dimension of which earlier choices leave
only some values is a parameter of its own name, since the choices of one Optuna parameter must be
the same in every trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

from peftsearch.design.form import FORMS, Bottleneck, Prefix
from peftsearch.design.modification import Modification
from peftsearch.design.place import PLACES, Place
from peftsearch.design.shapes import BackboneShapes
from peftsearch.design.validity import why_invalid
from peftsearch.errors import ConfigurationError
from peftsearch.space.file.schema import SlotChoices, SlotPlaces
from peftsearch.space.file.values import Suggester
from peftsearch.space.structures.slot_structure import (
    DIMENSIONS,
    INSERTIONS,
    NOTHING,
    SlotStructure,
    make_composition,
)

__all__ = ["PlacedSlot", "Slot", "full_name"]

_Groups = dict[str, tuple[SlotStructure, ...]]
_Options = Mapping[str, list[str]]


@dataclass(frozen=True, eq=False)
class Slot:
    """A named group of places; a configuration takes at most one of its structures."""

    name: str
    places: SlotPlaces
    choices: SlotChoices
    structures: tuple[SlotStructure, ...]
    """Every valid structure, in the order of the file; canonical ones only."""
    options: _Options
    """Values of each dimension. A parameter that offers all of them has its plain name."""
    _grouped: dict[tuple[int, str], tuple[object, _Groups]] = field(
        default_factory=dict, init=False, repr=False
    )

    @classmethod
    def read(cls, name: str, places: SlotPlaces, choices: SlotChoices) -> Slot:
        """The slot as a space file has it; ConfigurationError for an unknown place."""
        at = tuple(full_name(name, str(at)) for at in places.at.choices)
        structures = tuple(dict.fromkeys(_structures(at, places, choices)))
        return cls(name, places, choices, structures, _options(structures))

    @property
    def at(self) -> tuple[str, ...]:
        """Full names of its places."""
        return tuple(full_name(self.name, str(at)) for at in self.places.at.choices)

    def on(self, shapes: BackboneShapes) -> PlacedSlot:
        """The slot as one backbone can fill it: each modification once."""
        kept, written, left_out = _placed(self.structures, shapes, "all")
        return PlacedSlot(
            self.name, self.places, self.choices, kept, _options(kept), written, left_out
        )

    def unused(self) -> list[str]:
        """Values of the file that no structure has, as `insertion 'sequential'`."""
        notes = []
        for dimension in DIMENSIONS:
            source = self.places if dimension in ("at", "layers") else self.choices
            if not any(getattr(s, dimension) for s in self.structures if not s.is_empty):
                continue  # no form here has this dimension
            for value in getattr(source, dimension).choices:
                name = full_name(self.name, value) if dimension == "at" else value
                if name != "none" and not any(
                    getattr(s, dimension) == name for s in self.structures
                ):
                    notes.append(f"{dimension} '{value}'")
        return notes

    def walk(
        self, trial: Suggester, allowed: tuple[SlotStructure, ...], is_filled: bool = False
    ) -> SlotStructure:
        """Choose one of `allowed`, a dimension at a time. `is_filled`: that the slot holds a
        modification has been chosen before.
        """
        left: tuple[SlotStructure, ...] = allowed
        for dimension in DIMENSIONS:
            groups = self._groups(left, dimension)
            if len(groups) > 1:
                options = list(groups)
                name = self._parameter(dimension, options, is_filled)
                left = groups.get(trial.suggest_categorical(name, options), ())
        if len(left) != 1:
            raise ConfigurationError(f"slot '{self.name}': no structure fits the choices")
        return left[0]

    def _groups(self, left: tuple[SlotStructure, ...], dimension: str) -> _Groups:
        """Structures by their value of a dimension; the same few sets come up in every sample."""
        key = (id(left), dimension)
        if key not in self._grouped:
            groups: dict[str, list[SlotStructure]] = {}
            for structure in left:
                groups.setdefault(getattr(structure, dimension), []).append(structure)
            # `left` is kept beside its groups, so that no other tuple can take its id.
            self._grouped[key] = (left, {value: tuple(group) for value, group in groups.items()})
        return self._grouped[key][1]

    def _parameter(self, dimension: str, options: list[str], is_filled: bool) -> str:
        """`attn.form`, or `attn.insertion{parallel|sequential}` where only some are offered."""
        # Optuna refuses a categorical parameter whose choices differ between trials.
        name = f"{self.name}.{dimension}"
        every = [v for v in self.options[dimension] if not (is_filled and v == NOTHING.form)]
        return name if options == every else f"{name}{{{'|'.join(options)}}}"


@dataclass(frozen=True, eq=False)
class PlacedSlot(Slot):
    """A slot on one backbone."""

    written: Mapping[SlotStructure, Modification]
    """Each structure as the backbone writes it, its width open."""
    left_out: Mapping[SlotStructure, str]
    """Structures that the backbone cannot take, or would write as another one, and why."""

    def restricted_to(self, depth: str, shapes: BackboneShapes) -> PlacedSlot:
        """The slot in the layers of a depth only. Parameters keep the names that they have without
        a depth: `options` are those of the whole slot.
        """
        kept, written, left_out = _placed(self.structures, shapes, depth)
        return PlacedSlot(
            self.name, self.places, self.choices, kept, self.options, written, left_out
        )


def full_name(slot: str, at: str) -> str:
    """`query+value` in slot attn → `attn.query+value`; ConfigurationError for an unknown place."""
    first = at.partition("@")[0].partition("+")[0]
    name = at if "." in first or first in PLACES else f"{slot}.{at}"
    return str(Place.parse(name))


def _structures(
    at: tuple[str, ...], places: SlotPlaces, choices: SlotChoices
) -> Iterator[SlotStructure]:
    for form in map(str, choices.form.choices):
        if form == "none":
            yield NOTHING
        else:
            yield from _of_form(form, at, places, choices)


def _of_form(
    form: str, at: tuple[str, ...], places: SlotPlaces, choices: SlotChoices
) -> Iterator[SlotStructure]:
    kind = FORMS[form]
    inits: tuple[str, ...] = ("",)
    ways: tuple[str, ...] = ("",)
    if issubclass(kind, Bottleneck):
        inits = tuple(str(i) for i in choices.init.choices if i in kind.INITS)
    if issubclass(kind, Prefix):
        ways = tuple(map(str, choices.reparametrise.choices))
    insertions, compositions, masks = (
        [str(c) for c in values.choices]
        for values in (choices.insertion, choices.composition, places.layers)
    )
    for place, insertion, init, way, composition in product(
        at, insertions, inits, ways, compositions
    ):
        bare = SlotStructure(form, place, insertion, init, way, composition)
        if _reason_against(bare) is None:
            for mask in ("all",) if _is_placeless(place) else masks:
                yield replace(bare, layers=mask)


def _reason_against(structure: SlotStructure) -> str | None:
    return why_invalid(
        structure.make_form(),
        Place.parse(structure.at),
        INSERTIONS[structure.insertion],
        make_composition(structure.composition),
    )


def _is_placeless(at: str) -> bool:
    """True for embeddings and tensors of the body, for which a slot chooses no layers (`depth`
    may).
    """
    row = PLACES[Place.parse(at).names[0]]
    return row.body is not None or not row.kinds


def _options(structures: Iterable[SlotStructure]) -> _Options:
    """Every value of each dimension that some structure has."""
    return {
        d: [v for v in dict.fromkeys(getattr(s, d) for s in structures) if v] for d in DIMENSIONS
    }


def _placed(
    structures: Iterable[SlotStructure], shapes: BackboneShapes, depth: str
) -> tuple[tuple[SlotStructure, ...], dict[SlotStructure, Modification], dict[SlotStructure, str]]:
    """On a backbone, within a depth: the structures kept, how they are written there, and why each
    of the others is left out.
    """
    structures = tuple(structures)
    first_of: dict[Modification, SlotStructure] = {}
    left_out: dict[SlotStructure, str] = {}
    for structure in structures:
        if structure.is_empty:
            continue
        try:
            asked = structure.modification(shapes, depth=depth)
        except ConfigurationError as error:  # the depth leaves none of its layers
            left_out[structure] = str(error)
            continue
        try:
            canonical = asked.within(shapes)
        except ConfigurationError as error:
            left_out[structure] = str(error).removeprefix(f"{asked.describe()}: ")
            continue
        first = first_of.setdefault(canonical, structure)
        if first != structure:
            left_out[structure] = f"in {shapes.family} the same as {first.at}, {first.layers}"
    written = {structure: canonical for canonical, structure in first_of.items()}
    kept = tuple(s for s in structures if s.is_empty or s in written)
    return kept, written, left_out
