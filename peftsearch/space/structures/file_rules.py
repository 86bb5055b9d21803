"""Rules of a space file: those it states under `forbid`, and those that its slots imply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

from peftsearch.design.configuration import Configuration
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.errors import ConfigurationError
from peftsearch.space.file.document import Document
from peftsearch.space.structures.rules import Rule
from peftsearch.space.structures.slot_structure import (
    INSERTIONS,
    SlotStructure,
    make_composition,
)
from peftsearch.space.structures.slots import Slot, full_name

__all__ = ["exclusive", "forbidden"]

_EXCLUSIVE_FORMS = {"constant", "dense", "sparse"}
"""Forms that change tensors of the body, or something that such a change would change as well."""


def exclusive(document: Document, slots: Sequence[Slot]) -> list[Rule]:
    """Rules that keep two slots from changing the same tensors of the body. SpaceError for a slot
    without a valid combination, and for two that would modify one representation alike.
    """
    for slot in slots:
        if all(s.is_empty for s in slot.structures):
            raise document.error(
                ["choices", slot.name], "no combination of these dimensions is valid"
            )
    return [rule for pair in combinations(slots, 2) for rule in _apart(document, *pair)]


def _apart(document: Document, first: Slot, second: Slot) -> Iterator[Rule]:
    for (here, one), (there, other) in product(_sites_taken(first), _sites_taken(second)):
        try:
            Configuration((one, other))
        except ConfigurationError as error:
            if {one.form.name, other.form.name} & _EXCLUSIVE_FORMS:
                # A tensor of the body belongs to one modification: either, never both.
                yield {first.name: here, second.name: there}
                continue
            raise document.error(
                ["places", second.name], f"clashes with slot '{first.name}': {error}"
            ) from error


def forbidden(
    document: Document, slots: Sequence[Slot], written: Sequence[Mapping[str, str]]
) -> list[Rule]:
    """Rules of `forbid`, and one against the empty structure. SpaceError for an unknown slot,
    dimension or value.
    """
    by_name = {slot.name: slot for slot in slots}
    rules: list[Rule] = [{slot.name: {"form": "none"} for slot in slots}]
    for index, rule in enumerate(written):
        by_slot: dict[str, dict[str, str]] = {}
        for key, value in rule.items():
            slot, _, dimension = key.rpartition(".")
            known = slot in by_name and dimension in SlotStructure.__dataclass_fields__
            if not known:
                message = "unknown: expected SLOT.DIMENSION, for example attn.form"
                raise document.error(["forbid", index, key], message)
            values = {getattr(s, dimension) for s in by_name[slot].structures} - {""}
            canonical = _canonical(by_name[slot], dimension, value)
            if not value or canonical not in values:
                message = f"'{value}' is not among {', '.join(sorted(values))}"
                raise document.error(["forbid", index, key], message)
            by_slot.setdefault(slot, {})[dimension] = canonical
        rules.append(by_slot)
    return rules


def _sites_taken(slot: Slot) -> list[tuple[dict[str, str], Modification]]:
    """A modification for each form, place and insertion of a slot, and the rule that names it."""
    ways = {(s.form, s.at, s.insertion): s for s in slot.structures if not s.is_empty}
    taken = []
    for (form, at, insertion), structure in ways.items():
        place = Place.parse(structure.at)
        modification = Modification(
            structure.make_form(),
            place,
            INSERTIONS[insertion],
            make_composition(structure.composition),
        )
        width = modification.minimum_width if modification.has_width else None
        rule = {"form": form, "at": at, "insertion": insertion}
        taken.append((rule, modification.with_width(width)))
    return taken


def _canonical(slot: Slot, dimension: str, value: str) -> str:
    """A rule's value as structures spell it; an unknown place is left as it is."""
    try:
        return full_name(slot.name, value) if dimension == "at" else value
    except ConfigurationError:
        return value
