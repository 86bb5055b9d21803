"""A space: the set of configurations a search may visit. YAML ⇄ Optuna ⇄ Configuration.

Decoding is one straight walk (`decode.py`); encoding runs the same walk with the answers read off a
configuration (`encode.py`): one is the exact inverse of the other.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path

from peftsearch.design.configuration import Head, Training
from peftsearch.design.form import FORMS
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError, SpaceError, did_you_mean
from peftsearch.space.decode import Sample, decoded, walked
from peftsearch.space.file.document import Document, dump_yaml
from peftsearch.space.file.schema import HeadChoices, SpaceFile
from peftsearch.space.file.shipped import shipped_spaces
from peftsearch.space.file.train_choices import ALWAYS
from peftsearch.space.file.values import Suggests, Values
from peftsearch.space.structures.offered import Offered, Structure, offered_by_depth
from peftsearch.space.structures.slot_rules import exclusive, forbidden
from peftsearch.space.structures.slots import Slot

__all__ = ["Sample", "Space", "load_space"]


class Space:
    """A validated space file, which `load_space` reads: the configurations a search may visit.

    >>> space = peftsearch.load_space("space.yaml")
    >>> space.count_structures()
    1
    >>> print(space.to_yaml().splitlines()[0])
    schema: 1
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.file = document.validated(SpaceFile)
        self.slots = self._slots()
        self.shapes: BackboneShapes | None = None
        self._placed: dict[BackboneShapes, Space] = {}
        self._rules = [
            *exclusive(document, self.slots),
            *forbidden(document, self.slots, self.file.forbid),
        ]
        if self.count_structures() == 0:
            raise document.error(["forbid"], "nothing is left of the space")

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

    @cached_property
    def whole(self) -> Offered:
        """What the slots offer, whatever the depth."""
        return Offered(self.slots, self._rules)

    @cached_property
    def by_depth(self) -> dict[str, Offered]:
        """What is offered within each depth, widest first; on no backbone there is but one."""
        if self.shapes is None:
            return {"all": self.whole}
        depths = tuple(map(str, self.file.depth.choices))
        return offered_by_depth(self.slots, depths, self._rules, self.shapes)

    def count_structures(self) -> int:
        """Distinct structures: widths, rates and head left aside; on no backbone, whose layers a
        depth is of, those of one depth.
        """
        return sum(offered.count() for offered in self.by_depth.values())

    # -- Optuna → Configuration ----------------------------------------------------------------

    def decode(self, trial: Suggests, shapes: BackboneShapes) -> Sample:
        """Walk the space with a trial's suggestions, as it is on a backbone (`decode.py`)."""
        return decoded(self if self.shapes is shapes else self.on(shapes), trial, shapes)

    def walk(self, trial: Suggests) -> tuple[str, Structure]:
        """A depth, and a structure of what is offered within it."""
        return walked(self, trial)

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


def load_space(name: str | PathLike[str]) -> Space:
    """A shipped space by name, or a file by its path; SpaceError, with the line, for what is wrong
    in it.

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
