"""One Δh: functional form × place × insertion × composition × width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import groupby
from math import prod
from typing import Any

from peftsearch.design.checks import check_keys, checked_mapping
from peftsearch.design.composition import COMPOSITIONS, Add, Composition, RankStabilised, Scaled
from peftsearch.design.form import FORMS, Form, Prefix
from peftsearch.design.forms.base import Source
from peftsearch.design.insertion import INSERTIONS, Insertion, Parallel
from peftsearch.design.place import PLACES, Place
from peftsearch.design.shapes import BackboneShapes, SiteShape
from peftsearch.design.validity import minimum_width, why_invalid
from peftsearch.errors import ConfigurationError, did_you_mean
from peftsearch.wording import counted

__all__ = ["Modification", "TunedTensor", "options_json"]

_WIDEST = 10**13
"""Limit of a width; a sparse change's is its number of entries in the whole body."""


@dataclass(frozen=True)
class TunedTensor:
    """One tensor a modification tunes: its name is unique within the modification."""

    name: str
    """`layers.3.attn.query/down`; `shared/a` for a tensor that all sites share."""
    site: SiteShape | None
    shape: tuple[int, ...]
    of_composition: bool = False

    @property
    def key(self) -> str:
        """Its name within its site: `down`."""
        return self.name.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Modification:
    """A valid Δh: a form at a place, with an insertion, a composition and a width.

    `width` is r, l or another count (`Form.width_symbol`): one for all layers, or one a layer
    (lowest first); None where the form has none or a budget is to decide it.
    Raises ConfigurationError for a combination that is meaningless or repeats a simpler one
    (`validity.why_invalid`), and for a width out of bounds.

    >>> from peftsearch.design.form import Linear
    >>> from peftsearch.design.modification import Modification
    >>> from peftsearch.design.place import Place
    >>> Modification(Linear(), Place.parse("attn.query+value"), width=8).describe()
    'linear∥attn.query+value r=8'
    """

    form: Form
    place: Place
    insertion: Insertion = Parallel()
    composition: Composition = Add()
    width: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        reason = why_invalid(self.form, self.place, self.insertion, self.composition)
        if reason:
            raise ConfigurationError(f"{self._dimensions()}: {reason}")
        if self.width is None:
            return
        if not self.has_width:
            raise ConfigurationError(f"{self._dimensions()}: form '{self.form.name}' has no width")
        widths = self.width if isinstance(self.width, tuple) else (self.width,)
        if not all(type(w) is int and w >= self.minimum_width for w in widths):
            raise ConfigurationError(
                f"{self._dimensions()}: width {self.width} is below {self.minimum_width}, the "
                "least that is not equivalent to a simpler form"
            )
        if any(width > _WIDEST for width in widths):
            raise ConfigurationError(
                f"{self._dimensions()}: a width above {_WIDEST:,} is beyond any model's tensors"
            )
        layers = self.place.layers
        if len(widths) > 1 and layers is not None and len(widths) != len(layers):
            raise ConfigurationError(
                f"{self._dimensions()}: {counted(len(widths), 'width')} for "
                f"{counted(len(layers), 'layer')}"
            )
        if len(set(widths)) == 1:
            object.__setattr__(self, "width", widths[0])
            self._write_scale(widths[0])

    def _write_scale(self, width: int) -> None:
        """One width for all layers makes α/√r one number: the composition is then written so."""
        if isinstance(self.composition, RankStabilised):
            s = self.composition.scale(width)
            object.__setattr__(self, "composition", Add() if s == 1 else Scaled(s))

    @property
    def has_width(self) -> bool:
        """Whether its form has a width."""
        return self.form.width_symbol is not None

    @property
    def is_solved(self) -> bool:
        """Whether nothing is left for a budget to decide."""
        return self.width is not None or not self.has_width

    @property
    def minimum_width(self) -> int:
        """The least valid width: 2 for an ungated softmax, else 1."""
        return minimum_width(self.form, self.composition)

    def maximum_width(self, shapes: BackboneShapes) -> int:
        """The width beyond which more adds no capacity at any site."""
        sources = self.sources(shapes)
        widths = [self.form.max_width(site, d_source) for site, d_source in sources]
        return sum(widths) if sources[0][0].tensor else max(widths)

    def with_width(self, width: int | tuple[int, ...] | None) -> Modification:
        """The same modification with another width."""
        return replace(self, width=width)

    def on(self, layers: tuple[int, ...] | None) -> Modification:
        """The same modification in other layers."""
        return replace(self, place=replace(self.place, layers=layers))

    @property
    def identity_at_init(self) -> bool:
        """Whether attaching it, before training, leaves the backbone as it was."""
        zero = self.form.identity_at_init and self.composition.keeps_identity
        return zero or self.composition.closed_at_init

    def within(self, shapes: BackboneShapes) -> Modification:
        """The same modification as one backbone writes it (`Place.within`).

        Raises ConfigurationError where the backbone cannot take it.
        """
        place = self.place.within(shapes)
        if isinstance(self.form, Prefix) and not shapes.takes_prefix:
            raise ConfigurationError(
                f"{self.describe()}: the attention of {shapes.family} takes no further keys and "
                "values; a prompt or an adapter can be used"
            )
        reads_stream = getattr(self.insertion, "reads", "") == "residual_stream"
        if reads_stream and not shapes.pre_norm:
            raise ConfigurationError(
                f"{self.describe()}: in {shapes.family} the residual stream is the sub-layer's "
                "input: write sublayer_input"
            )
        for site, d_source in self._sources(place, shapes):
            reason = self.form.why_not_at(site, d_source)
            if reason:
                raise ConfigurationError(f"{self.describe()}, {site.key}: {reason}")
        return replace(self, place=place, width=self._width_within(place, shapes))

    def _width_within(self, place: Place, shapes: BackboneShapes) -> int | tuple[int, ...] | None:
        """The widths of the layers that are left within a backbone."""
        layers = place.layers_in(shapes)
        if isinstance(self.width, int) and PLACES[place.names[0]].body:
            return min(self.width, self.maximum_width(shapes))
        if not isinstance(self.width, tuple) or len(self.width) == len(layers):
            return self.width
        named = self.place.layers or ()
        if len(named) != len(self.width):
            raise ConfigurationError(
                f"{self.describe()}: {counted(len(self.width), 'width')} for "
                f"{counted(len(layers), 'layer')}"
            )
        widths = dict(zip(named, self.width, strict=True))
        return tuple(widths[layer] for layer in layers)

    def _sources(self, place: Place, shapes: BackboneShapes) -> list[Source]:
        return [(site, self.insertion.source_width(site)) for site in place.sites(shapes)]

    def sources(self, shapes: BackboneShapes) -> list[Source]:
        """(site, d_source) for each of its sites."""
        return self._sources(self.place, shapes)

    @property
    def widest(self) -> int:
        """The largest of its widths; 0 without any."""
        return max(self.width) if isinstance(self.width, tuple) else self.width or 0

    def width_at(self, site: SiteShape, shapes: BackboneShapes) -> int:
        """The width at one of its sites."""
        if not isinstance(self.width, tuple):
            return self.width or 0
        layers = self.place.layers_in(shapes)
        if len(self.width) != len(layers):
            raise ConfigurationError(
                f"{self.describe()}: {counted(len(self.width), 'width')} for "
                f"{counted(len(layers), 'layer')}"
            )
        return self.width[layers.index(site.layer or 0)]

    def tuned_tensors(self, shapes: BackboneShapes) -> Iterator[TunedTensor]:
        """Every tensor that is stored and counted: counting and attaching read the same list."""
        sources = self.sources(shapes)
        for name, shape in self.form.shared(sources, self.widest).items():
            yield TunedTensor(f"shared/{name}", None, shape)
        for site, d_source in sources:
            width = self.width_at(site, shapes)
            for name, shape in self.form.tensors(site, d_source, width).items():
                yield TunedTensor(f"{site.key}/{name}", site, shape)
            for name, shape in self.composition.tensors(site, d_source).items():
                yield TunedTensor(f"{site.key}/{name}", site, shape, of_composition=True)

    def parameters(self, shapes: BackboneShapes) -> int:
        """Exact number of tuned parameters, from shapes alone: those that are stored."""
        return sum(prod(tensor.shape) for tensor in self.tuned_tensors(shapes))

    def trained_parameters(self, shapes: BackboneShapes) -> int:
        """Number of trained parameters: with an MLP or a mask, more than are stored."""
        trained = self.form.trained(self.sources(shapes), self.widest)
        if trained is None:
            return self.parameters(shapes)
        gates = (t for t in self.tuned_tensors(shapes) if t.of_composition)
        return sum(map(prod, [*trained.values(), *(t.shape for t in gates)]))

    def describe(self) -> str:
        """One readable line: `relu∥ffn.out r=64 s=4, layers 3–5`."""
        width = f"{self.form.width_symbol}={_runs(self.width)}" if self.width is not None else ""
        line = " ".join(p for p in (self._dimensions(), width, self.composition.describe()) if p)
        layers = self.place.describe_layers()
        return f"{line}, {layers}" if layers else line

    def _dimensions(self) -> str:
        extras = []
        if getattr(self.insertion, "reads", "") == "projection_input":
            extras.append("reads projection")
        if getattr(self.insertion, "reads", "") == "residual_stream":
            extras.append("reads residual stream")
        if self.form.describe():
            extras.append(self.form.describe())
        ungated = self.form.name == "prefix" and self.composition.name in ("add", "scaled")
        name = f"ungated {self.form.name}" if ungated else self.form.name
        symbol = self.insertion.symbol if self.form.is_projection else "@"
        suffix = f" ({', '.join(extras)})" if extras else ""
        return f"{name}{symbol}{self.place}{suffix}"

    def to_json(self) -> dict[str, Any]:
        """JSON values of the four dimensions and the width, as records and hashes use them."""
        return {
            "form": _dimension_json(self.form),
            "place": {"at": str(self.place), "layers": _listed(self.place.layers)},
            "insertion": _dimension_json(self.insertion),
            "composition": _dimension_json(self.composition),
            "width": list(self.width) if isinstance(self.width, tuple) else self.width,
        }

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> Modification:
        """The inverse of `to_json`; ConfigurationError names the key or value that is wrong."""
        json = checked_mapping("modification", json)
        check_keys("modification", json, (f.name for f in fields(cls)))
        place = checked_mapping("place", json.get("place", {}))
        check_keys("place", place, ("at", "layers"))
        layers, width = place.get("layers"), json.get("width")
        if not (layers is None or isinstance(layers, list)):
            raise ConfigurationError(f"place '{place.get('at')}': layers must be a list, or null")
        return cls(
            form=_dimension(json.get("form"), FORMS, "form"),
            place=Place.parse(str(place.get("at")), None if layers is None else tuple(layers)),
            insertion=_dimension(json.get("insertion"), INSERTIONS, "insertion"),
            composition=_dimension(json.get("composition"), COMPOSITIONS, "composition"),
            width=tuple(width) if isinstance(width, list) else width,
        )


def _runs(width: int | tuple[int, ...]) -> str:
    """`8`, or `1×3,2×3` for a width a layer, lowest layer first."""
    if isinstance(width, int):
        return str(width)
    return ",".join(f"{value}×{len(list(run))}" for value, run in groupby(width))


def _listed(layers: tuple[int, ...] | None) -> list[int] | None:
    return None if layers is None else list(layers)


def _dimension_json(value: Form | Insertion | Composition) -> dict[str, Any]:
    return {"name": value.name} | options_json(value)


def options_json(value: Any) -> dict[str, Any]:
    """A dataclass's fields, but for options marked `OMIT_DEFAULT` that are at their default."""
    return {
        f.name: getattr(value, f.name)
        for f in fields(value)
        if not (f.metadata.get("omit_default") and getattr(value, f.name) == f.default)
    }


def _dimension(json: Any, registry: Mapping[str, type[Any]], what: str) -> Any:
    """One value of a dimension from its JSON: `{"name": ..., option: ...}`."""
    name = json.get("name") if isinstance(json, Mapping) else json
    if not isinstance(json, Mapping) or not isinstance(name, str) or name not in registry:
        raise ConfigurationError(f"{what} '{name}' unknown{did_you_mean(str(name), registry)}")
    cls = registry[name]
    options = {key: value for key, value in json.items() if key != "name"}
    check_keys(what, options, (f.name for f in fields(cls)))
    return cls(**options)
