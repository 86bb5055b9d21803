"""A space: the set of configurations a search may visit. YAML ⇄ Optuna ⇄ Configuration.

Decoding is one straight walk: depth → structure → budget → shares → widths → rates → head.
Encoding runs the same walk with the answers read off a configuration: one is the exact inverse of
the other.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import FORMS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError, SpaceError, did_you_mean
from peftsearch.space.allocate import Allocation, allocate, allocate_all
from peftsearch.space.document import Document, dump_yaml
from peftsearch.space.offered import Offered, Structure, offered_by_depth
from peftsearch.space.rules import Rule
from peftsearch.space.schema import HeadChoices, SpaceFile
from peftsearch.space.shipped import shipped_spaces
from peftsearch.space.structures import (
    INSERTIONS,
    Slot,
    SlotStructure,
    make_composition,
)
from peftsearch.space.train_choices import ALWAYS
from peftsearch.space.values import Suggests, Values

__all__ = ["Sample", "Space", "load_space"]

BUDGET = "tuned_pct"
DEPTH = "depth"


@dataclass(frozen=True)
class Sample:
    """What a walk through the space gave: a configuration, or a structure that nothing fits."""

    structure: Structure
    configuration: Configuration | None
    budget_pct: float | None
    """None for structures without a width: they cost what they cost."""
    log_excess: float = 0.0
    """log(least cost / budget), above 0 where nothing fits: the sampler's constraint."""
    depth: str = "all"
    """What its structure stays within."""


class Space:
    """A validated space file."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.file = document.validated(SpaceFile)
        self.slots = self._slots()
        self.shapes: BackboneShapes | None = None
        self._placed: dict[BackboneShapes, Space] = {}
        self._exclusive: list[Rule] = []
        self._check_slots()
        self._check_forbid()

    def on(self, shapes: BackboneShapes) -> Space:
        """The space as one backbone sees it: only structures that it has, each once.

        What a sampler is offered depends on the space and the backbone alone. Raises
        ConfigurationError where nothing of the space is left.
        """
        if self.shapes == shapes:
            return self
        if shapes not in self._placed:
            placed = copy.copy(self)
            placed.shapes = shapes
            placed.slots = tuple(slot.on(shapes) for slot in self.slots)
            placed.file = self.file.model_copy(update={"head": _head_on(self.file.head, shapes)})
            for computed in ("whole", "by_depth"):
                placed.__dict__.pop(computed, None)
            if placed.count_structures() == 0:
                raise ConfigurationError(
                    f"{shapes.family} can take nothing of space '{self.name}' "
                    f"('peftsearch check {self.name} --model ...' says why)"
                )
            self._placed[shapes] = placed
        return self._placed[shapes]

    def without_head(self) -> Space:
        """The space for texts to be written, where there is no head to choose."""
        bare = copy.copy(self)
        no_head = HeadChoices.model_construct(pooling=Values(("none",)), pooler=Values(("none",)))
        bare.file = self.file.model_copy(update={"head": no_head})
        bare._placed = {}
        return bare

    @property
    def name(self) -> str:
        return Path(self.document.name).stem

    @property
    def hash(self) -> str:
        """Of the meaning, not of comments or order of keys."""
        text = json.dumps(self.file.to_plain(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        return dump_yaml(self.file.to_plain())

    # -- reading the file ----------------------------------------------------------------------

    def _slots(self) -> tuple[Slot, ...]:
        places, choices = self.file.places, self.file.choices
        for name in places:
            if name not in choices:
                raise self.document.error(["places", name], f"no choices for slot '{name}'")
        for name in choices:
            if name not in places:
                raise self.document.error(["choices", name], f"no places for slot '{name}'")
        slots = []
        for name in places:
            try:
                slots.append(Slot(name, places[name], choices[name]))
            except ConfigurationError as error:
                raise self.document.error(["places", name, "at"], str(error)) from error
        return tuple(slots)

    def _check_slots(self) -> None:
        """Every slot offers something, and no two can modify one representation in one way."""
        for slot in self.slots:
            if all(s.is_empty for s in slot.structures):
                raise self.document.error(
                    ["choices", slot.name], "no combination of these dimensions is valid"
                )
        for index, first in enumerate(self.slots):
            for second in self.slots[index + 1 :]:
                self._check_apart(first, second)

    def _check_apart(self, first: Slot, second: Slot) -> None:
        for (here, one), (there, other) in product(_sites_taken(first), _sites_taken(second)):
            try:
                Configuration((one, other))
            except ConfigurationError as error:
                if {one.form.name, other.form.name} & _STANDS_APART:
                    # One tensor of the body has one owner: the two are never sampled together.
                    self._exclusive.append({first.name: here, second.name: there})
                    continue
                raise self.document.error(
                    ["places", second.name], f"clashes with slot '{first.name}': {error}"
                ) from error

    def _check_forbid(self) -> None:
        by_name = {slot.name: slot for slot in self.slots}
        for index, rule in enumerate(self.file.forbid):
            for key, value in rule.items():
                slot, _, dimension = key.rpartition(".")
                known = slot in by_name and dimension in SlotStructure.__dataclass_fields__
                if not known:
                    message = "unknown: expected SLOT.DIMENSION, for example attn.form"
                    raise self.document.error(["forbid", index, key], message)
                values = {getattr(s, dimension) for s in by_name[slot].structures} - {""}
                if not value or _canonical(by_name[slot], dimension, value) not in values:
                    message = f"'{value}' is not among {', '.join(sorted(values))}"
                    raise self.document.error(["forbid", index, key], message)
        if self.count_structures() == 0:
            raise self.document.error(["forbid"], "nothing is left of the space")

    def _rules(self) -> list[Rule]:
        """Forbidden conjunctions; the empty structure is always one."""
        rules: list[Rule] = [{slot.name: {"form": "none"} for slot in self.slots}]
        rules += self._exclusive
        by_name = {slot.name: slot for slot in self.slots}
        for rule in self.file.forbid:
            by_slot: dict[str, dict[str, str]] = {}
            for key, value in rule.items():
                slot, _, dimension = key.rpartition(".")
                value = _canonical(by_name[slot], dimension, value)
                by_slot.setdefault(slot, {})[dimension] = value
            rules.append(by_slot)
        return rules

    @cached_property
    def whole(self) -> Offered:
        """What the slots offer, whatever the depth."""
        return Offered(self.slots, self._rules())

    @cached_property
    def by_depth(self) -> dict[str, Offered]:
        """What is offered within each depth, widest first; on no backbone there is but one."""
        if self.shapes is None:
            return {"all": self.whole}
        depths = tuple(map(str, self.file.depth.choices))
        return offered_by_depth(self.slots, depths, self._rules(), self.shapes)

    def count_structures(self) -> int:
        """Distinct structures: widths, rates and head left aside; on no backbone, whose layers a
        depth is of, those of one depth.
        """
        return sum(offered.count() for offered in self.by_depth.values())

    # -- Optuna → Configuration ----------------------------------------------------------------

    def decode(self, trial: Suggests, shapes: BackboneShapes) -> Sample:
        """Walk the space with a trial's suggestions, as it is on a backbone."""
        if self.shapes is not shapes:
            return self.on(shapes)._decode(trial, shapes)
        return self._decode(trial, shapes)

    def _decode(self, trial: Suggests, shapes: BackboneShapes) -> Sample:
        depth, structure = self.walk(trial)
        offered = self.by_depth[depth]
        open_modifications = self._modifications(trial, offered, structure)
        head = self._head(trial)
        pooler = head.pooler_parameters(shapes.hidden) if head.pooler_counts else 0
        budget_pct, allocation = self._solve(
            *(trial, offered, structure, open_modifications, pooler, shapes)
        )
        if not allocation.fits:
            assert budget_pct is not None
            budget = max(1, _parameters(budget_pct, shapes))
            excess = math.log((allocation.cost + pooler) / budget)
            return Sample(structure, None, budget_pct, max(excess, 1e-9), depth)
        training = self._training(trial, allocation.modifications)
        configuration = Configuration(allocation.modifications, head, training)
        return Sample(structure, configuration.within(shapes), budget_pct, depth=depth)

    def walk(self, trial: Suggests) -> tuple[str, Structure]:
        """A depth, and a structure of what is offered within it."""
        depth = str(Values(tuple(self.by_depth)).suggest(trial, DEPTH))
        return depth, self.by_depth[depth].walk(trial)

    def _modifications(
        self, trial: Suggests, offered: Offered, structure: Structure
    ) -> list[Modification]:
        """Modifications of the filled slots, widths open."""
        modifications = []
        for slot, filled in zip(offered.slots, structure, strict=True):
            if filled.is_empty:
                continue
            number = slot.choices.number_of(filled.composition)
            scale = number and number[1].suggest(trial, f"{slot.name}.{number[0]}")
            composition = make_composition(filled.composition, scale)
            modifications.append(replace(slot.written[filled], composition=composition))
        return modifications

    def _head(self, trial: Suggests) -> Head:
        """Where the pooler is a choice it counts as tuned; where it is fixed it is of the head."""
        choices = self.file.head
        pooler = choices.pooler.suggest(trial, "head.pooler")
        pooling = choices.pooling.suggest(trial, "head.pooling")
        return Head(pooling, pooler, pooler_counts=not choices.pooler.is_fixed)

    def _solve(
        self,
        trial: Suggests,
        offered: Offered,
        structure: Structure,
        modifications: list[Modification],
        pooler: int,
        shapes: BackboneShapes,
    ) -> tuple[float | None, Allocation]:
        names = [
            s.name for s, filled in zip(self.slots, structure, strict=True) if not filled.is_empty
        ]
        with_width = [n for n, m in zip(names, modifications, strict=True) if m.has_width]
        if not with_width:
            return None, allocate(
                modifications, [], sum(m.parameters(shapes) for m in modifications), shapes
            )
        budget_pct = float(self.file.budgets.tuned_pct.suggest(trial, BUDGET))
        shares = _break_stick(trial, with_width)
        budget = _parameters(budget_pct, shapes) - pooler
        allocation = allocate(modifications, shares, budget, shapes)
        if allocation.fits and not offered.contains(structure, allocation.kept):
            allocation = allocate_all(modifications, budget, shapes)
        return budget_pct, allocation

    def _training(self, trial: Suggests, modifications: Sequence[Modification]) -> Training:
        rules = self.file.train
        forms = sorted({m.form.name for m in modifications})
        rates = tuple(
            (form, float(rules.lr[form].suggest(trial, f"lr.{form}")))
            for form in forms
            if form in rules.lr
        )
        keys = (*ALWAYS, *(["up_lr_ratio"] if any(FORMS[form].fast for form in forms) else []))
        return Training(lr=rates, **{key: rules.suggest(trial, key) for key in keys})

    # -- a method as a configuration of this space ---------------------------------------------

    def head_like(self, wanted: Head) -> Head:
        """The space's head nearest to a wanted one."""
        choices = self.file.head
        pooler = choices.pooler.nearest(wanted.pooler)
        counts = not choices.pooler.is_fixed
        return Head(choices.pooling.nearest(wanted.pooling), pooler, pooler_counts=counts)

    def head_alone(self, wanted: Head, shapes: BackboneShapes) -> Head:
        """A head to be trained with nothing else, as this backbone and task can have it."""
        pooling = self.on(shapes).file.head.pooling
        if "none" in pooling.choices:
            return Head("none")
        return Head(
            _pooling_on(wanted.pooling, shapes),  # type: ignore[arg-type]
            wanted.pooler,
            wanted.pooler_counts,
        )

    def training_like(self, forms: Sequence[str], lr: float | None = None) -> Training:
        """Typical learning rates (or `lr` for all forms), moved into this space's ranges."""
        rules = self.file.train
        rates = tuple(
            (form, float(rules.lr[form].nearest(lr or FORMS[form].typical_lr)))
            for form in forms
            if form in rules.lr
        )
        defaults = Training()
        keys = (*ALWAYS, "up_lr_ratio")
        return Training(
            lr=rates, **{key: rules.nearest(key, getattr(defaults, key)) for key in keys}
        )


def _head_on(head: HeadChoices, shapes: BackboneShapes) -> HeadChoices:
    """In a decoder the first token has seen nothing: what is meant is the one that has seen all."""
    names = dict.fromkeys(_pooling_on(str(name), shapes) for name in head.pooling.choices)
    return head.model_copy(update={"pooling": Values(tuple(names))})


def _pooling_on(pooling: str, shapes: BackboneShapes) -> str:
    return "last" if pooling == "first" and shapes.reads_forward else pooling


_STANDS_APART = {"constant", "dense", "sparse"}
"""Forms that change tensors of the body, or what such a change would change as well."""


def _sites_taken(slot: Slot) -> list[tuple[dict[str, str], Modification]]:
    """One modification for each way a slot may take a site: two that take one alike clash."""
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
    """A rule's value as structures spell it; a place that does not exist stays as it is."""
    try:
        return slot.full_name(value) if dimension == "at" else value
    except ConfigurationError:
        return value


def _parameters(pct: float, shapes: BackboneShapes) -> int:
    """Whole parameters in a percentage of the body."""
    return int(pct / 100 * shapes.body_parameters + 1e-6)


def _break_stick(trial: Suggests, slots: Sequence[str]) -> list[float]:
    """Shares of the budget, one parameter fewer than slots."""
    shares: list[float] = []
    left = 1.0
    for slot in slots[:-1]:
        part = trial.suggest_float(f"share.{slot}", 0.0, 1.0) * left
        shares.append(part)
        left -= part
    return [*shares, left]


def load_space(name: str) -> Space:
    """A shipped space by name, or a file by its path."""
    shipped = shipped_spaces()
    if name in shipped:
        return Space(Document.read(shipped[name]))
    path = Path(name)
    if not path.is_file():
        raise SpaceError(
            f"space '{name}': neither a file nor a shipped space{did_you_mean(name, shipped)}"
        )
    return Space(Document.read(path))
