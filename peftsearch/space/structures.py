"""The structures of a space: every valid way to fill its slots, walked as a tree of choices.

Invalid and duplicate combinations are never offered. A choice offered in part (because of what was
chosen before) is a parameter of its own name, since the choices of one Optuna parameter must be the
same in every trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product

from peftsearch.design.composition import Add, Composition, Gated, Scaled
from peftsearch.design.form import FORMS, Bottleneck, Form
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import PLACES, Place
from peftsearch.design.validity import why_invalid
from peftsearch.errors import ConfigurationError
from peftsearch.space.schema import SlotChoices, SlotPlaces
from peftsearch.space.values import Suggests

__all__ = ["NOTHING", "Slot", "SlotStructure", "layer_mask"]


@dataclass(frozen=True)
class SlotStructure:
    """One valid filling of a slot, in the words of the space file; `form: none` leaves it empty."""

    form: str = "none"
    at: str = ""
    insertion: str = ""
    init: str = ""
    composition: str = ""
    layers: str = ""

    @property
    def is_empty(self) -> bool:
        return self.form == "none"

    def modification(self, layers: int, scale: float | str | None = None) -> Modification:
        """The modification with its width still to be solved, in a backbone of so many layers."""
        return Modification(
            form=_form(self.form, self.init),
            place=Place(Place.parse(self.at).names, layer_mask(self.layers, layers)),
            insertion=_INSERTIONS[self.insertion],
            composition=_composition(self.composition, scale),
        ).with_width(None)


NOTHING = SlotStructure()
DIMENSIONS = tuple(f.name for f in fields(SlotStructure))
_INSERTIONS: dict[str, Insertion] = {
    "parallel": Parallel(),
    "projection": Parallel("projection_input"),
    "sequential": Sequential(),
}


def _form(name: str, init: str) -> Form:
    form = FORMS[name]
    if not issubclass(form, Bottleneck):
        return form()
    return form(init="bert" if init == "bert" else "lora")


def _composition(name: str, scale: float | str | None) -> Composition:
    if name == "add":
        return Add()
    if name == "gated":
        return Gated()
    return Scaled("learned" if scale is None or isinstance(scale, str) else float(scale))


def layer_mask(name: str, layers: int) -> tuple[int, ...] | None:
    """A named set of layers, None for all; `every_other` includes the last."""
    masks = {
        "all": range(layers),
        "upper_half": range(layers // 2, layers),
        "lower_half": range(layers - layers // 2),
        "every_other": range((layers - 1) % 2, layers, 2),
        "last": range(layers - 1, layers),
    }
    chosen = tuple(masks[name])
    return None if len(chosen) == layers else chosen


class Slot:
    """A named group of places; a configuration takes at most one of its structures."""

    def __init__(self, name: str, places: SlotPlaces, choices: SlotChoices) -> None:
        self.name, self.places, self.choices = name, places, choices
        self.at = tuple(self._full_name(str(at)) for at in places.at.choices)

    def _full_name(self, at: str) -> str:
        """`query+value` in slot attn → `attn.query+value`."""
        name = at if "." in at or at in PLACES else f"{self.name}.{at}"
        return str(Place.parse(name))

    @cached_property
    def structures(self) -> tuple[SlotStructure, ...]:
        """Every valid structure, in the order of the file; canonical ones only."""
        offered: dict[SlotStructure, None] = {}
        forms = [str(f) for f in self.choices.form.choices]
        for form in forms:
            if form == "none":
                offered[NOTHING] = None
                continue
            for structure in self._of_form(form):
                offered[structure] = None
        return tuple(offered)

    def _of_form(self, form: str) -> Iterator[SlotStructure]:
        bottleneck = issubclass(FORMS[form], Bottleneck)
        inits = self.choices.init.choices if bottleneck else ("",)
        rest = (self.choices.insertion, self.choices.composition, self.places.layers)
        names = [[str(c) for c in values.choices] for values in rest]
        for at, insertion, init, composition, layers in product(
            self.at, names[0], inits, names[1], names[2]
        ):
            structure = SlotStructure(form, at, insertion, str(init), composition, layers)
            if self._reason_against(structure) is None:
                yield structure

    def _reason_against(self, structure: SlotStructure) -> str | None:
        return why_invalid(
            _form(structure.form, structure.init),
            Place.parse(structure.at),
            _INSERTIONS[structure.insertion],
            _composition(structure.composition, None),
        )

    def unused(self) -> list[str]:
        """What the file offers and no structure uses: `insertion 'sequential'`."""
        notes = []
        for dimension in DIMENSIONS:
            source = self.places if dimension in ("at", "layers") else self.choices
            if not any(getattr(s, dimension) for s in self.structures if not s.is_empty):
                continue  # no form here has this dimension
            for value in getattr(source, dimension).choices:
                name = self._full_name(value) if dimension == "at" else value
                if name != "none" and not any(
                    getattr(s, dimension) == name for s in self.structures
                ):
                    notes.append(f"{dimension} '{value}'")
        return notes

    def walk(self, trial: Suggests, allowed: tuple[SlotStructure, ...]) -> SlotStructure:
        """Choose one of `allowed`, a dimension at a time."""
        left = list(allowed)
        for dimension in DIMENSIONS:
            options = list(dict.fromkeys(getattr(s, dimension) for s in left))
            if len(options) > 1:
                name = self._parameter(dimension, options)
                choice = trial.suggest_categorical(name, options)
                left = [s for s in left if getattr(s, dimension) == choice]
        if len(left) != 1:
            raise ConfigurationError(f"slot '{self.name}': no structure fits the choices")
        return left[0]

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
