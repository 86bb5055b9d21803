"""Configurations: modifications, head and training; immutable, hashed, readable."""

from __future__ import annotations

import hashlib
import json as jsonlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from peftsearch.design.checks import check_keys, checked_mapping
from peftsearch.design.head import Head
from peftsearch.design.modification import Modification, options_json
from peftsearch.design.place import PLACES
from peftsearch.design.shapes import BackboneShapes
from peftsearch.design.training import Training
from peftsearch.design.validity import read_same_vector
from peftsearch.errors import ConfigurationError

__all__ = ["Configuration", "Head", "Training"]

_INDEX_BYTES = 8
"""Bytes of an int64."""


@dataclass(frozen=True)
class Configuration:
    """A point of the design space. Equal configurations have equal hashes, in every process.

    Modifications are sorted, and training keeps the learning rates of their forms alone.
    Raises ConfigurationError for a modification without a width, and for two that meet at one site
    and could be written as one.

    >>> from peftsearch.design.configuration import Configuration
    >>> from peftsearch.design.methods import METHODS
    >>> mam = Configuration(METHODS["mam"].modifications)
    >>> mam.describe()
    'prefix@attn.heads l=16 + relu∥ffn.out r=16 s=2'
    >>> Configuration.from_json(mam.to_json()).hash == mam.hash
    True
    """

    modifications: tuple[Modification, ...] = ()
    head: Head = field(default_factory=Head)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        for modification in self.modifications:
            if not modification.is_solved:
                raise ConfigurationError(f"{modification.describe()}: no width given")
        ordered = tuple(sorted(self.modifications, key=_order))
        object.__setattr__(self, "modifications", ordered)
        _refuse_mergeable(ordered)
        rates = {m.form.name: self.training.lr_of(m.form.name) for m in ordered}
        ratio = self.training.up_lr_ratio if any(m.form.fast for m in ordered) else 1.0
        training = replace(self.training, lr=tuple(rates.items()), up_lr_ratio=ratio)
        object.__setattr__(self, "training", training)

    def within(self, shapes: BackboneShapes) -> Configuration:
        """The same configuration as one backbone writes it (`Modification.within`): layers that are
        all of its layers become None. Raises ConfigurationError for what the backbone has not.
        """
        placed = tuple(m.within(shapes) for m in self.modifications)
        return replace(self, modifications=placed)

    def tuned_parameters(self, shapes: BackboneShapes) -> int:
        """Exact number of stored tuned parameters, and of the pooler's where it counts."""
        pooler = self.head.pooler_parameters(shapes.hidden) if self.head.pooler_counts else 0
        return pooler + sum(m.parameters(shapes) for m in self.modifications)

    def tuned_pct(self, shapes: BackboneShapes) -> float:
        """Tuned parameters in percent of the pretrained body, the second objective of a search."""
        return 100.0 * self.tuned_parameters(shapes) / shapes.body_parameters

    def trained_parameters(self, shapes: BackboneShapes, outputs: int) -> int:
        """Number of trained parameters, the head's included."""
        head = self.head.parameters(shapes.hidden, outputs)
        return head + sum(m.trained_parameters(shapes) for m in self.modifications)

    def stored_bytes(self, shapes: BackboneShapes, outputs: int, float_bytes: int = 4) -> int:
        """Bytes of the tensors in a native export, the head's included; `float_bytes` are those of
        one tuned number: 4, or 8 beside a backbone in fp64.
        """
        stored = sum(m.parameters(shapes) for m in self.modifications)
        indices = sum(m.form.stored_indices(m.widest) for m in self.modifications)
        head = self.head.parameters(shapes.hidden, outputs)
        return float_bytes * (stored + head) + _INDEX_BYTES * indices

    def frozen_layers(self, shapes: BackboneShapes) -> int:
        """Number of lowest layers of the first stack that it leaves unchanged, with their input."""
        layers = [s.layer for m in self.modifications for s, _ in m.sources(shapes)]
        lowest = min((-1 if layer is None else layer for layer in layers), default=shapes.layers)
        return max(0, min(lowest, shapes.stacks[0] if shapes.stacks else shapes.layers))

    @property
    def hash(self) -> str:
        """First 16 hex digits of SHA-256 over the canonical JSON."""
        # Records, journals and exports name configurations by it: any change of this text would
        # make every recorded trial another configuration.
        text = jsonlib.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """One readable line: `relu∥ffn.out r=64 s=4 + prefix@attn.heads l=8, layers 3–5`."""
        if not self.modifications:
            if self.head.pooling == "none":
                return "untuned"
            pooler = " and pooler" if self.head.pooler == "trained" else ""
            return f"head{pooler} only, {self.head.pooling} pooling"
        # Those with layers of their own come last: their layers then clearly belong to them alone.
        ordered = sorted(self.modifications, key=lambda m: m.place.layers is not None)
        line = " + ".join(m.describe() for m in ordered)
        return f"{line} + pooler" if self.head.pooler_counts else line

    def to_json(self) -> dict[str, Any]:
        """JSON values, as records and hashes use them."""
        return {
            "modifications": [m.to_json() for m in self.modifications],
            "head": asdict(self.head),
            "training": options_json(self.training) | {"lr": dict(self.training.lr)},
        }

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> Configuration:
        """The inverse of `to_json`; ConfigurationError names the key or value that is wrong."""
        json = checked_mapping("configuration", json)
        check_keys("configuration", json, (f.name for f in fields(cls)))
        head = checked_mapping("head", json.get("head", {}))
        check_keys("head", head, (f.name for f in fields(Head)))
        training = checked_mapping("training", json.get("training", {}))
        check_keys("training", training, (f.name for f in fields(Training)))
        training["lr"] = tuple(checked_mapping("lr", training.get("lr", {})).items())
        modifications = json.get("modifications", [])
        if not isinstance(modifications, list):
            raise ConfigurationError("modifications must be a list")
        made = tuple(Modification.from_json(m) for m in modifications)
        return cls(made, Head(**head), Training(**training))


def _order(modification: Modification) -> str:
    return jsonlib.dumps(modification.to_json(), sort_keys=True)


def _refuse_mergeable(modifications: tuple[Modification, ...]) -> None:
    """Refuse two modifications of one form at one site: one with the summed width is the same."""
    for index, first in enumerate(modifications):
        for second in modifications[index + 1 :]:
            if _overlap(first, second):
                raise ConfigurationError(
                    f"'{first.describe()}' and '{second.describe()}' meet at one site: write one "
                    "modification with the sum of their widths"
                )
    _refuse_overlapping_tensors(modifications)


def _refuse_overlapping_tensors(modifications: tuple[Modification, ...]) -> None:
    """Refuse two modifications that tune the same tensors of the body."""
    bodies = [m for m in modifications if PLACES[m.place.names[0]].body]
    if any(m.form.name == "dense" for m in bodies) and len(modifications) > 1:
        raise ConfigurationError(
            "full fine-tuning contains every other modification: write it alone"
        )
    if len(bodies) > 1:
        first, second = (str(m.place) for m in bodies[:2])
        advice = (
            "write it without the other"
            if "weights" in (first, second)
            else f"write one modification at '{first}+{second}'"
        )
        raise ConfigurationError(f"places '{first}' and '{second}' share tensors: {advice}")
    constants = [m for m in modifications if m.form.name == "constant"]
    if len(constants) > 1 and any("biases" in str(m.place) for m in bodies):
        raise ConfigurationError(
            f"place '{bodies[0].place}' holds biases already: leave out the other one"
        )


def _overlap(first: Modification, second: Modification) -> bool:
    if first.form.name != second.form.name:
        return False
    names = set(first.place.names) & set(second.place.names)
    if not any(read_same_vector(name, first.insertion, second.insertion) for name in names):
        return False
    return _meet(first.place.layers, second.place.layers) and _meet(
        first.place.kinds, second.place.kinds
    )


def _meet(here: tuple[object, ...] | None, there: tuple[object, ...] | None) -> bool:
    return here is None or there is None or bool(set(here) & set(there))
