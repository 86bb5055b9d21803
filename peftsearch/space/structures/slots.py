"""The structures of a space: every valid way to fill its slots, walked as a tree of choices.

Invalid and duplicate combinations are never offered. A choice offered in part (because of what was
chosen before) is a parameter of its own name, since the choices of one Optuna parameter must be the
same in every trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import product

from peftsearch.design.composition import (
    COMPOSITIONS,
    Composition,
    Dora,
    RankStabilised,
    Scaled,
)
from peftsearch.design.form import FORMS, Bottleneck, Form, Prefix
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import PLACES, Place
from peftsearch.design.shapes import BackboneShapes
from peftsearch.design.validity import why_invalid
from peftsearch.errors import ConfigurationError
from peftsearch.space.file.schema import SlotChoices, SlotPlaces
from peftsearch.space.file.values import Suggests
from peftsearch.space.masks import layer_mask, overlap

__all__ = ["INSERTIONS", "MLP_UNITS", "NOTHING", "Slot", "SlotStructure", "make_composition"]

MLP_UNITS = 800
"""Hidden units of a re-parametrised prefix (Li and Liang 2021; He et al. 2022)."""
INSERTIONS: dict[str, Insertion] = {
    "parallel": Parallel(),
    "projection": Parallel("projection_input"),
    "residual_stream": Parallel("residual_stream"),
    "sequential": Sequential(),
}


@dataclass(frozen=True)
class SlotStructure:
    """One valid filling of a slot, in the words of the space file; `form: none` leaves it empty."""

    form: str = "none"
    at: str = ""
    insertion: str = ""
    init: str = ""
    reparametrise: str = ""
    composition: str = ""
    layers: str = ""

    @property
    def is_empty(self) -> bool:
        return self.form == "none"

    def make_form(self) -> Form:
        """Under a gate that begins closed a prefix begins at random: else it would stay so."""
        form = FORMS[self.form]
        if issubclass(form, Bottleneck):
            return form(init=self.init)  # type: ignore[arg-type]
        if issubclass(form, Prefix):
            mlp = MLP_UNITS if self.reparametrise == "mlp" else None
            closed = COMPOSITIONS[self.composition].closed_at_init
            return form(mlp=mlp, init="normal" if closed else "zero")
        return form()

    def modification(
        self, shapes: BackboneShapes, scale: float | str | None = None, depth: str = "all"
    ) -> Modification:
        """The modification with its width still to be solved, its layers those of a backbone that
        are in a depth too; a ConfigurationError where there is none.
        """
        mask = overlap(layer_mask(self.layers, shapes), layer_mask(depth, shapes))
        return Modification(
            form=self.make_form(),
            place=Place.parse(self.at, mask),
            insertion=INSERTIONS[self.insertion],
            composition=make_composition(self.composition, scale),
        )


_Groups = dict[str, tuple[SlotStructure, ...]]
NOTHING = SlotStructure()
DIMENSIONS = tuple(f.name for f in fields(SlotStructure))


def make_composition(name: str, scale: float | str | None = None) -> Composition:
    """A composition with its number: s, or α of a rank-stabilised scale."""
    cls = COMPOSITIONS[name]
    if scale is None or cls not in (Scaled, RankStabilised, Dora):
        return cls()
    if cls is Scaled:
        return Scaled("learned" if scale == "learned" else float(scale))
    return cls(float(scale))


class Slot:
    """A named group of places; a configuration takes at most one of its structures."""

    def __init__(self, name: str, places: SlotPlaces, choices: SlotChoices) -> None:
        self.name, self.places, self.choices = name, places, choices
        self.at = tuple(self.full_name(str(at)) for at in places.at.choices)
        self.left_out: dict[SlotStructure, str] = {}
        """What a backbone cannot take of the slot, or would write as something else offered."""
        self.written: dict[SlotStructure, Modification] = {}
        """Each structure as the backbone writes it, its width open."""

    def full_name(self, at: str) -> str:
        """`query+value` in slot attn → `attn.query+value`."""
        first = at.partition("@")[0].partition("+")[0]
        name = at if "." in first or first in PLACES else f"{self.name}.{at}"
        return str(Place.parse(name))

    @cached_property
    def structures(self) -> tuple[SlotStructure, ...]:
        """Every valid structure, in the order of the file; canonical ones only."""
        offered: dict[SlotStructure, None] = {}
        for form in map(str, self.choices.form.choices):
            if form == "none":
                offered[NOTHING] = None
                continue
            for structure in self._of_form(form):
                offered[structure] = None
        return tuple(offered)

    def on(self, shapes: BackboneShapes, depth: str = "all") -> Slot:
        """The slot as one backbone can fill it in the layers of a depth: each representation and
        form in it once. Of a slot on a backbone that goes by its parameters' names.
        """
        placed = Slot(self.name, self.places, self.choices)
        written: dict[Modification, SlotStructure] = {}
        for structure in self.structures:
            if structure.is_empty:
                continue
            try:
                asked = structure.modification(shapes, depth=depth)
            except ConfigurationError as error:  # the depth leaves none of its layers
                placed.left_out[structure] = str(error)
                continue
            try:
                canonical = asked.within(shapes)
            except ConfigurationError as error:
                placed.left_out[structure] = str(error).removeprefix(f"{asked.describe()}: ")
                continue
            first = written.setdefault(canonical, structure)
            placed.written[first] = canonical
            if first != structure:
                what = f"{first.at}, {first.layers}"
                placed.left_out[structure] = f"in {shapes.family} the same as {what}"
        kept = set(written.values())
        placed.__dict__["structures"] = tuple(s for s in self.structures if s.is_empty or s in kept)
        if depth != "all":
            placed.__dict__["_options"] = self._options
        return placed

    def _of_form(self, form: str) -> Iterator[SlotStructure]:
        kind = FORMS[form]
        inits: tuple[str, ...] = ("",)
        ways: tuple[str, ...] = ("",)
        if issubclass(kind, Bottleneck):
            inits = tuple(str(i) for i in self.choices.init.choices if i in kind.INITS)
        if issubclass(kind, Prefix):
            ways = tuple(map(str, self.choices.reparametrise.choices))
        insertions, compositions, masks = (
            [str(c) for c in values.choices]
            for values in (self.choices.insertion, self.choices.composition, self.places.layers)
        )
        for at, insertion, init, way, composition in product(
            self.at, insertions, inits, ways, compositions
        ):
            bare = SlotStructure(form, at, insertion, init, way, composition)
            if _reason_against(bare) is None:
                for mask in ("all",) if _is_placeless(at) else masks:
                    yield replace(bare, layers=mask)

    def unused(self) -> list[str]:
        """What the file offers and no structure uses: `insertion 'sequential'`."""
        notes = []
        for dimension in DIMENSIONS:
            source = self.places if dimension in ("at", "layers") else self.choices
            if not any(getattr(s, dimension) for s in self.structures if not s.is_empty):
                continue  # no form here has this dimension
            for value in getattr(source, dimension).choices:
                name = self.full_name(value) if dimension == "at" else value
                if name != "none" and not any(
                    getattr(s, dimension) == name for s in self.structures
                ):
                    notes.append(f"{dimension} '{value}'")
        return notes

    def walk(self, trial: Suggests, allowed: tuple[SlotStructure, ...]) -> SlotStructure:
        """Choose one of `allowed`, a dimension at a time."""
        left: tuple[SlotStructure, ...] = allowed
        for dimension in DIMENSIONS:
            groups = self._groups(left, dimension)
            if len(groups) > 1:
                options = list(groups)
                name = self._parameter(dimension, options)
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

    @cached_property
    def _grouped(self) -> dict[tuple[int, str], tuple[object, _Groups]]:
        return {}

    def _parameter(self, dimension: str, options: list[str]) -> str:
        """`attn.form`, or `attn.insertion{parallel|sequential}` where only some are offered."""
        name = f"{self.name}.{dimension}"
        return name if options == self._options[dimension] else f"{name}{{{'|'.join(options)}}}"

    @cached_property
    def _options(self) -> dict[str, list[str]]:
        """Every value of each dimension that some structure has."""
        return {
            d: [v for v in dict.fromkeys(getattr(s, d) for s in self.structures) if v]
            for d in DIMENSIONS
        }

    def matches(self, structure: SlotStructure, rule: Mapping[str, str]) -> bool:
        """Whether a structure meets every condition of a rule about this slot."""
        return all(getattr(structure, dimension) == value for dimension, value in rule.items())


def _reason_against(structure: SlotStructure) -> str | None:
    return why_invalid(
        structure.make_form(),
        Place.parse(structure.at),
        INSERTIONS[structure.insertion],
        make_composition(structure.composition),
    )


def _is_placeless(at: str) -> bool:
    """Of embeddings and tensors of the body a slot chooses no layers: `depth` may."""
    row = PLACES[Place.parse(at).names[0]]
    return row.body is not None or not row.kinds
