"""A space: the set of configurations a search may visit, read from a YAML file.

`space.on(shapes)` is the space on one backbone; there `decode` turns Optuna's suggestions into a
configuration, and `encode`, its exact inverse, a configuration into suggestions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from math import comb
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from peftsearch.design.configuration import Head, Training
from peftsearch.design.form import FORMS
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError, SpaceError, did_you_mean
from peftsearch.space.file.document import Document, dump_yaml
from peftsearch.space.file.schema import HeadChoices, SpaceFile
from peftsearch.space.file.shipped import shipped_spaces
from peftsearch.space.file.train_choices import ALWAYS
from peftsearch.space.file.values import Values
from peftsearch.space.placed import PlacedSpace, place_space
from peftsearch.space.structures.file_rules import exclusive, forbidden
from peftsearch.space.structures.slots import Slot
from peftsearch.space.structures.tree import StructureTree

__all__ = ["Space", "load_space"]


_FIRST_FORMS = frozenset(
    "linear relu gelu silu swiglu prefix prefix_relu prompt constant rescale loreft kronecker vera "
    "dense sparse".split()
)
"""Forms of version 0.2.0: their rates are part of every hash, as studies recorded it."""

_MOST_WAYS = 1000
"""Most ways to choose the slots that a number of modifications fills: values of one parameter."""


class Space:
    """A validated space file, which `load_space` reads: the configurations a search may visit.

    >>> space = peftsearch.load_space("lora-only")
    >>> space.count_structures()
    1088
    >>> print(space.to_yaml().splitlines()[0])
    schema: 1
    """

    def __init__(
        self,
        document: Document,
        file: SpaceFile | None = None,
        tree: StructureTree[Slot] | None = None,
    ) -> None:
        """Read and check `document`; `file` and `tree`, where given, are its content already read.
        SpaceError, with the line, for anything wrong in it.
        """
        self.document = document
        self.file = file or document.validated(SpaceFile)
        self.tree = tree or _structures(document, self.file)
        self._placed: dict[BackboneShapes, PlacedSpace] = {}

    def on(self, shapes: BackboneShapes) -> PlacedSpace:
        """The space on one backbone; ConfigurationError if that can take nothing of it.

        >>> from peftsearch.backbone.loading.load import load_shapes
        >>> list(peftsearch.load_space("demo").on(load_shapes("config:bert-base")).by_depth)
        ['all']
        """
        if shapes not in self._placed:
            self._placed[shapes] = place_space(self.name, self.file, self.tree, shapes)
        return self._placed[shapes]

    def without_head(self) -> Space:
        """The space for tasks that write text, where there is no head to choose."""
        no_head = HeadChoices.model_construct(pooling=Values(("none",)), pooler=Values(("none",)))
        return Space(self.document, self.file.model_copy(update={"head": no_head}), self.tree)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The named groups of places, in the order of the file."""
        return self.tree.slots

    @property
    def name(self) -> str:
        """The file's name without its extension."""
        return Path(self.document.name).stem

    @property
    def hash(self) -> str:
        """16 hex digits of the space's meaning. Comments, the order of keys, and forms that are
        registered later and that the space does not use, leave it as it is.
        """
        plain = self.file.to_plain()
        train = plain.get("train", {})
        if isinstance(train.get("lr"), dict):
            # One rule for all forms is written out for each of them: a study of a space must be
            # resumable in a version with more forms.
            used = _FIRST_FORMS | _strings_in([v for key, v in plain.items() if key != "train"])
            rates = {form: rule for form, rule in train["lr"].items() if form in used}
            plain["train"] = train | {"lr": rates}
        text = json.dumps(plain, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """The file as YAML, with most defaults written out; it reads back as an equal space."""
        return dump_yaml(self.file.to_plain())

    def count_structures(self) -> int:
        """Number of distinct structures of the file, on no backbone and at one depth (a depth is a
        set of a backbone's layers); widths, rates and head are not counted.
        """
        return self.tree.count()

    def unused(self) -> list[str]:
        """Values of the file that no structure has: `ffn: composition 'gated'`."""
        notes = [f"{slot.name}: {note}" for slot in self.slots for note in slot.unused()]
        filled = self.tree.filled_slots
        never = [] if filled is None else sorted(filled.shares.keys() - filled.ways.keys())
        return notes + [f"modifications: {number}" for number in never]

    def nearest_head(self, wanted: Head) -> Head:
        """The head of this space that is nearest to `wanted`."""
        choices = self.file.head
        pooler = choices.pooler.nearest(wanted.pooler)
        counts = not choices.pooler.is_fixed
        return Head(choices.pooling.nearest(wanted.pooling), pooler, pooler_counts=counts)

    def nearest_training(self, forms: Sequence[str], lr: float | None = None) -> Training:
        """Training with typical learning rates (or `lr`) for `forms`, and every field moved to the
        nearest value that this space allows.
        """
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


def _strings_in(value: Any) -> set[str]:
    """Every string in a nested value of lists and mappings, keys included."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    return set().union(*map(_strings_in, value)) if isinstance(value, list | tuple) else set()


def load_space(name: str | PathLike[str]) -> Space:
    """A shipped space by name, or a file by its path; SpaceError with the line of the first
    problem.

    >>> peftsearch.load_space("demo").name
    'demo'
    """
    name = fspath(name)
    shipped = shipped_spaces()
    if name in shipped:
        return Space(Document.read(shipped[name]))
    path = Path(name)
    if not path.is_file():
        raise SpaceError(
            f"space '{name}': neither a file nor a shipped space{did_you_mean(name, shipped)}"
        )
    return Space(Document.read(path))


def _structures(document: Document, file: SpaceFile) -> StructureTree[Slot]:
    """The structures that a file allows; SpaceError if there are none."""
    slots = _slots(document, file)
    for number in file.modifications or ():
        _refuse_number(document, number, len(slots))
    rules = [*exclusive(document, slots), *forbidden(document, slots, file.forbid)]
    tree = StructureTree(slots, rules, shares=file.modifications)
    if tree.count() == 0:
        key = "forbid" if file.forbid or not file.modifications else "modifications"
        raise document.error([key], "these rules exclude every structure of the space")
    return tree


def _refuse_number(document: Document, number: int, slots: int) -> None:
    """SpaceError for more modifications than slots, and for too many ways to choose slots."""
    if number > slots:
        message = f"{number} modifications need {number} slots; there are {slots}"
        raise document.error(["modifications"], message)
    if comb(slots, number) > _MOST_WAYS:
        message = f"{number} of {slots} slots can be chosen in more than {_MOST_WAYS:,} ways"
        raise document.error(["modifications"], message)


def _slots(document: Document, file: SpaceFile) -> tuple[Slot, ...]:
    for name in file.places:
        if name not in file.choices:
            raise document.error(["places", name], f"no choices for slot '{name}'")
    for name in file.choices:
        if name not in file.places:
            raise document.error(["choices", name], f"no places for slot '{name}'")
    slots = []
    for name in file.places:
        try:
            slots.append(Slot.read(name, file.places[name], file.choices[name]))
        except ConfigurationError as error:
            raise document.error(["places", name, "at"], str(error)) from error
    return tuple(slots)
