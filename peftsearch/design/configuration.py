"""A configuration: modifications, head and training; immutable, hashed, readable."""

from __future__ import annotations

import hashlib
import json as jsonlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from peftsearch.design.form import FORMS
from peftsearch.design.forms.base import LATER
from peftsearch.design.modification import Modification, options_json
from peftsearch.design.place import PLACES
from peftsearch.design.shapes import BackboneShapes
from peftsearch.design.validity import reads_alike
from peftsearch.errors import ConfigurationError, did_you_mean

__all__ = ["Configuration", "Head", "Training"]


@dataclass(frozen=True)
class Head:
    """What reads the backbone's last hidden states and is trained with every configuration."""

    pooling: Literal["first", "mean"] = "mean"
    pooler: Literal["none", "trained"] = "none"
    """`trained`: a d×d layer and tanh before the classifier, begun from the pretrained pooler."""
    pooler_counts: bool = False
    """Whether the pooler counts as tuned: where a space offers it as a choice, it does."""

    def __post_init__(self) -> None:
        _one_of("pooling", self.pooling, ("first", "mean"))
        _one_of("pooler", self.pooler, ("none", "trained"))
        if not isinstance(self.pooler_counts, bool):
            raise ConfigurationError(f"pooler_counts {self.pooler_counts} is not true or false")
        if self.pooler == "none" and self.pooler_counts:
            object.__setattr__(self, "pooler_counts", False)

    def pooler_parameters(self, hidden: int) -> int:
        return hidden * hidden + hidden if self.pooler == "trained" else 0

    def parameters(self, hidden: int, outputs: int) -> int:
        """Trained parameters of the whole head."""
        return self.pooler_parameters(hidden) + hidden * outputs + outputs


@dataclass(frozen=True)
class Training:
    """How a configuration is trained. Learning rates are per functional form: one rate for all
    is unfair to prefixes and biases. The schedule is constant after the warm-up, so that a rung's
    value does not depend on the final length.
    """

    lr: tuple[tuple[str, float], ...] = ()
    """(form, learning rate), sorted by form; a form not named uses its typical rate."""
    head_lr: float = 1e-3
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup: float = 0.06
    """Share of the full training length."""
    max_grad_norm: float = 1.0
    up_lr_ratio: float = field(default=1.0, metadata=LATER)
    """Learning rate of up-projections over that of the other tensors of their form: LoRA+ (Hayou et
    al. 2024, arXiv 2402.12354).
    """

    def __post_init__(self) -> None:
        for form, rate in self.lr:
            _one_of("lr: form", form, tuple(FORMS))
            _within(f"lr of {form}", rate, 0, 10)
        _within("head_lr", self.head_lr, 0, 10)
        _within("weight_decay", self.weight_decay, -1e-12, 10)
        _within("warmup", self.warmup, -1e-12, 1)
        _within("max_grad_norm", self.max_grad_norm, 0, 1e9)
        if type(self.batch_size) is not int or not 1 <= self.batch_size <= 65536:
            raise ConfigurationError(f"batch_size {self.batch_size} is not between 1 and 65536")
        _within("up_lr_ratio", self.up_lr_ratio, 0, 1e4)
        for name in ("head_lr", "weight_decay", "warmup", "max_grad_norm", "up_lr_ratio"):
            # 1 and 1.0 are equal and must hash equal, but are two texts in JSON.
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "lr", tuple(sorted((f, float(r)) for f, r in self.lr)))

    def lr_of(self, form: str) -> float:
        return dict(self.lr).get(form, FORMS[form].typical_lr)


@dataclass(frozen=True)
class Configuration:
    """A point of the design space. Equal configurations have equal hashes, everywhere."""

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
        """Canonical in one backbone: all of its layers are written as `None`, others refused."""
        placed = tuple(m.within(shapes) for m in self.modifications)
        return replace(self, modifications=placed)

    def tuned_parameters(self, shapes: BackboneShapes) -> int:
        """Exact, from shapes: the modifications, and the pooler where it counts."""
        pooler = self.head.pooler_parameters(shapes.hidden) if self.head.pooler_counts else 0
        return pooler + sum(m.parameters(shapes) for m in self.modifications)

    def tuned_pct(self, shapes: BackboneShapes) -> float:
        """Tuned parameters in percent of the pretrained body, the second objective of a search."""
        return 100.0 * self.tuned_parameters(shapes) / shapes.body_parameters

    def trained_parameters(self, shapes: BackboneShapes, outputs: int) -> int:
        """Tuned parameters and the head."""
        head = self.head.parameters(shapes.hidden, outputs)
        return head + sum(m.trained_parameters(shapes) for m in self.modifications)

    @property
    def hash(self) -> str:
        """First 16 hex digits of SHA-256 over the canonical JSON."""
        text = jsonlib.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """One line for people: `relu∥ffn.out r=64 s=4 + prefix@attn.heads l=8, layers 3–5`."""
        if not self.modifications:
            pooler = " and pooler" if self.head.pooler == "trained" else ""
            return f"head{pooler} only, {self.head.pooling} pooling"
        # Those with layers of their own come last: their layers then clearly belong to them alone.
        ordered = sorted(self.modifications, key=lambda m: m.place.layers is not None)
        line = " + ".join(m.describe() for m in ordered)
        return f"{line} + pooler" if self.head.pooler_counts else line

    def to_json(self) -> dict[str, Any]:
        return {
            "modifications": [m.to_json() for m in self.modifications],
            "head": asdict(self.head),
            "training": options_json(self.training) | {"lr": dict(self.training.lr)},
        }

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> Configuration:
        """The inverse of `to_json`; raises ConfigurationError naming the key that is wrong."""
        json = _mapping(json, "configuration")
        _known(json, {f.name for f in fields(cls)}, "configuration")
        head = _mapping(json.get("head", {}), "head")
        _known(head, {f.name for f in fields(Head)}, "head")
        training = _mapping(json.get("training", {}), "training")
        _known(training, {f.name for f in fields(Training)}, "training")
        training["lr"] = tuple(_mapping(training.get("lr", {}), "lr").items())
        modifications = json.get("modifications", [])
        if not isinstance(modifications, list):
            raise ConfigurationError("modifications must be a list")
        made = tuple(Modification.from_json(m) for m in modifications)
        return cls(made, Head(**head), Training(**training))


def _order(modification: Modification) -> str:
    return jsonlib.dumps(modification.to_json(), sort_keys=True)


def _refuse_mergeable(modifications: tuple[Modification, ...]) -> None:
    """Two modules of one form at one site are one with the sum of their widths."""
    for index, first in enumerate(modifications):
        for second in modifications[index + 1 :]:
            if _overlap(first, second):
                raise ConfigurationError(
                    f"'{first.describe()}' and '{second.describe()}' meet at one site: write one "
                    "modification with the sum of their widths"
                )
    _refuse_overlapping_tensors(modifications)


def _refuse_overlapping_tensors(modifications: tuple[Modification, ...]) -> None:
    """Tensors of the body belong to one modification."""
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
    if not any(reads_alike(name, first.insertion, second.insertion) for name in names):
        return False
    return _meet(first.place.layers, second.place.layers) and _meet(
        first.place.kinds, second.place.kinds
    )


def _meet(here: tuple[object, ...] | None, there: tuple[object, ...] | None) -> bool:
    return here is None or there is None or bool(set(here) & set(there))


def _one_of(what: str, value: Any, known: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in known:
        raise ConfigurationError(f"{what} '{value}' unknown{did_you_mean(str(value), known)}")


def _within(what: str, value: Any, low: float, high: float) -> None:
    if type(value) not in (int, float) or not low < value <= high:
        raise ConfigurationError(f"{what} {value} is not between {max(low, 0):g} and {high:g}")


def _mapping(json: Any, what: str) -> dict[str, Any]:
    if not isinstance(json, Mapping):
        raise ConfigurationError(f"{what} must be a mapping, not {type(json).__name__}")
    return dict(json)


def _known(json: Mapping[str, Any], known: set[str], what: str) -> None:
    for key in json:
        if key not in known:
            raise ConfigurationError(f"{what} has no key '{key}'{did_you_mean(str(key), known)}")
