"""Dimension 2, the modified representation: a choice of h and layers (He et al. 2022, Table 1).

A place names one representation (`attn.heads`) or joins several of one sub-layer that share one
width (`attn.query+value`), in all attention sub-layers or in those of some kinds
(`attn.heads@cross`). A new place is one row of `PLACES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

from peftsearch.design.shapes import (
    ATTENTION_KINDS,
    FFN_KINDS,
    AttentionShape,
    BackboneShapes,
    FfnShape,
    SiteShape,
    TensorShape,
)
from peftsearch.errors import ConfigurationError, did_you_mean

__all__ = ["PLACES", "Place", "PlaceRow"]

_Attention = Callable[[AttentionShape], tuple[int, int]]
_Ffn = Callable[[FfnShape], tuple[int, int]]
_Body = Callable[[TensorShape], int]


@dataclass(frozen=True)
class PlaceRow:
    """One name of a representation h, or of a group of the body's tensors.

    `attention` or `ffn` gives (d_projection, d_h) from the shape of the sub-layer that h is in.

    >>> from peftsearch.design.place import PLACES
    >>> from peftsearch.design.shapes import FfnShape
    >>> PLACES["ffn.out"].ffn(FfnShape(layer=0, d_in=768, d_hidden=3072, d_out=768))
    (3072, 768)
    """

    name: str
    meaning: str
    attention: _Attention | None = None
    ffn: _Ffn | None = None
    body: _Body | None = None
    """For tensors of the body rather than a representation: the number of a tensor's entries that
    belong to the place, 0 for none.
    """
    exists: Callable[[BackboneShapes], bool] = lambda shapes: True
    """Whether a backbone has the place at all."""

    @property
    def sublayer(self) -> str:
        """`attn`, `ffn`, `residual`, `embedding` or `body`; places of the same can be joined."""
        return "body" if self.body else self.name.split(".")[0]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of sub-layer it may be restricted to."""
        return ATTENTION_KINDS if self.attention else FFN_KINDS if self.ffn else ()

    @property
    def is_in_layers(self) -> bool:
        """Whether it may be restricted to layers; tensors outside all layers are then left out."""
        return self.body is not None or bool(self.kinds)


# In the order of a forward: joined names are written, and meeting modifications installed, in it.
PLACES: dict[str, PlaceRow] = {
    row.name: row
    for row in (
        PlaceRow("embedding", "token embeddings, before positions are added"),
        PlaceRow("attn.query", "queries, before heads are split", lambda a: (a.d_in, a.d_query)),
        PlaceRow("attn.key", "keys", lambda a: (a.d_in, a.d_key)),
        PlaceRow("attn.value", "values", lambda a: (a.d_in, a.d_key)),
        PlaceRow("attn.heads", "concatenated heads, before W_o", lambda a: (a.d_in, a.d_query)),
        PlaceRow("attn.out", "attention output, after W_o", lambda a: (a.d_query, a.d_out)),
        PlaceRow(
            "ffn.hidden", "ffn hidden, before activation", None, lambda f: (f.d_in, f.d_hidden)
        ),
        PlaceRow(
            "ffn.gate",
            "the gate projection of a gated ffn, before its activation",
            None,
            lambda f: (f.d_in, f.d_hidden),
            exists=lambda shapes: any(f.gated for f in shapes.ffn),
        ),
        PlaceRow(
            "ffn.activated",
            "ffn hidden, after activation",
            None,
            lambda f: (f.d_in, f.d_hidden),
        ),
        PlaceRow("ffn.out", "ffn output", None, lambda f: (f.d_hidden, f.d_out)),
        PlaceRow(
            "residual.attn",
            "after attention's add & norm",
            lambda a: (a.d_out, a.d_out),
            exists=lambda shapes: shapes.sums_attention,
        ),
        PlaceRow("residual.ffn", "after ffn's add & norm", None, lambda f: (f.d_out, f.d_out)),
        PlaceRow(
            "biases",
            "every bias of the body that gets a gradient",
            body=lambda t: t.live if t.is_bias else 0,
        ),
        PlaceRow(
            "all_biases",
            "every bias of the body, including those without a gradient",
            body=lambda t: t.parameters if t.is_bias else 0,
        ),
        PlaceRow(
            "norm",
            "weights and biases of every norm of the body",
            body=lambda t: t.parameters if t.is_norm else 0,
        ),
        PlaceRow("weights", "every tensor of the body", body=lambda t: t.parameters),
    )
}


@dataclass(frozen=True)
class Place:
    """A modified representation: names of `PLACES` joined within one sub-layer, in some layers and
    kinds of attention or ffn (None: all).

    Names, layers and kinds are sorted, so that equal places are written alike. Layers are numbered
    over the whole backbone from 0, an encoder-decoder's decoder after its encoder.
    Raises ConfigurationError for an unknown name, for names of two sub-layers, for layers below 0
    or of a place in no layer, and for a kind that the place has not.

    >>> from peftsearch.design.place import Place
    >>> place = Place.parse("attn.value+query@cross", layers=(3, 4, 5))
    >>> str(place), place.describe_layers()
    ('attn.query+value@cross', 'layers 3–5')
    """

    names: tuple[str, ...]
    layers: tuple[int, ...] | None = None
    kinds: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in PLACES:
                raise ConfigurationError(f"place '{name}' unknown{did_you_mean(name, PLACES)}")
        if not self.names or len(set(self.names)) != len(self.names):
            raise ConfigurationError(f"place '{self}' names nothing, or one representation twice")
        if len({PLACES[name].sublayer for name in self.names}) > 1:
            joined = "+".join(self.names)
            raise ConfigurationError(f"place '{joined}' joins different sub-layers: use two places")
        object.__setattr__(self, "names", tuple(sorted(self.names, key=list(PLACES).index)))
        if self.layers is not None:
            if not all(PLACES[name].is_in_layers for name in self.names):
                raise ConfigurationError(
                    f"place '{self}' is in no layer: leave out 'layers', all of it is modified"
                )
            if not all(type(layer) is int for layer in self.layers):
                raise ConfigurationError(f"place '{self}': layers must be whole numbers")
            if not self.layers or min(self.layers) < 0:
                raise ConfigurationError(f"place '{self}' has no layers: name at least one")
            object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))
        if self.kinds is not None:
            self._check_kinds(self.kinds)

    def _check_kinds(self, kinds: tuple[str, ...]) -> None:
        known = tuple(
            k for k in PLACES[self.names[0]].kinds if all(k in PLACES[n].kinds for n in self.names)
        )
        for kind in kinds:
            if kind not in known:
                hint = did_you_mean(kind, known) or (
                    f"; it may be {', '.join(known)}" if known else "; this place has no kinds"
                )
                raise ConfigurationError(f"place '{self}': kind '{kind}' unknown{hint}")
        if not kinds:
            raise ConfigurationError(f"place '{self}' has no kinds: name at least one")
        object.__setattr__(self, "kinds", tuple(k for k in known if k in kinds))

    @classmethod
    def parse(cls, text: str, layers: tuple[int, ...] | None = None) -> Place:
        """The place of a text such as `attn.query+value@cross`: the inverse of `str`."""
        joined, at, kinds = text.partition("@")
        first, *others = joined.split("+")
        sublayer = first.split(".")[0]
        names = (first, *(o if "." in o or o in PLACES else f"{sublayer}.{o}" for o in others))
        return cls(names, layers, tuple(kinds.split("+")) if at else None)

    def __str__(self) -> str:
        first, *others = self.names or ("",)
        joined = "+".join([first, *(name.split(".")[-1] for name in others)])
        return f"{joined}@{'+'.join(self.kinds)}" if self.kinds else joined

    def within(self, shapes: BackboneShapes) -> Place:
        """The same place as one backbone writes it: only names that it has; layers and kinds only
        where they leave something out. Raises ConfigurationError where nothing is left.
        """
        return _within(self, shapes)

    def layers_in(self, shapes: BackboneShapes) -> tuple[int, ...]:
        """The layers that hold a site; empty for embeddings and tensors of the body."""
        return _layers_in(self, shapes)

    def sites(self, shapes: BackboneShapes) -> tuple[SiteShape, ...]:
        """Every site of this place in a backbone, name by name, lowest layer first."""
        return _sites_of(self, shapes)

    def describe_layers(self) -> str:
        """`layers 3–5`, or nothing for all layers."""
        if self.layers is None:
            return ""
        runs: list[list[int]] = []
        for layer in self.layers:
            if runs and layer == runs[-1][-1] + 1:
                runs[-1].append(layer)
            else:
                runs.append([layer])
        text = ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs)
        return f"layer{'s' if len(self.layers) > 1 else ''} {text}"


# Cached, as are the next two: a sampler asks for the same places of one backbone at every sample.
@lru_cache(maxsize=65536)
def _sites_of(place: Place, shapes: BackboneShapes) -> tuple[SiteShape, ...]:
    if any(PLACES[name].body for name in place.names):
        return _tensor_sites(place.names, place.layers, shapes)
    return tuple(
        site
        for name in place.names
        for site in _sites(PLACES[name], shapes)
        if (place.layers is None or site.layer in place.layers)
        and (place.kinds is None or site.kind in place.kinds)
    )


@lru_cache(maxsize=65536)
def _layers_in(place: Place, shapes: BackboneShapes) -> tuple[int, ...]:
    if any(PLACES[name].body for name in place.names):
        return ()
    return tuple(sorted({s.layer for s in place.sites(shapes) if s.layer is not None}))


@lru_cache(maxsize=65536)
def _within(place: Place, shapes: BackboneShapes) -> Place:
    if place.layers is not None and place.layers[-1] >= shapes.layers:
        raise ConfigurationError(
            f"place '{place}' names layer {place.layers[-1]}, but the backbone has layers "
            f"0 to {shapes.layers - 1}"
        )
    present = {site.place for site in place.sites(shapes)}
    if not present:
        raise ConfigurationError(
            f"{shapes.family} has no place '{place}'{_why_none(place, shapes)}"
        )
    if any(PLACES[name].body for name in place.names):
        return _fewest_body_names(place, shapes)
    names = tuple(name for name in place.names if name in present)
    layers = Place(names, place.layers, place.kinds).layers_in(shapes)
    if not layers:
        return Place(names)
    kinds = _restricting_kinds(names, layers, place.kinds, shapes)
    everywhere = Place(names, None, kinds).layers_in(shapes)
    # With kinds the layers stand too: without them, nobody could tell from two places alone whether
    # they share a site.
    return Place(names, None if layers == everywhere and kinds is None else layers, kinds)


def _fewest_body_names(place: Place, shapes: BackboneShapes) -> Place:
    """The fewest names, first in the table, of just these tensors: without biases, `biases+norm` is
    `norm`; where no bias is dead, `all_biases` is `biases`. Layers that hold one, unless it is all.
    """
    tuned = _tuned(place, shapes)
    held = tuple(sorted({site.layer for site in place.sites(shapes) if site.layer is not None}))
    layers = None if place.layers is None or _tuned(Place(place.names), shapes) == tuned else held
    bodies = [name for name, row in PLACES.items() if row.body]
    for count in range(1, len(place.names) + 1):
        for names in combinations(bodies, count):
            if _tuned(Place(names, layers), shapes) == tuned:
                return Place(names, layers)
    return replace(place, layers=layers)


def _tuned(place: Place, shapes: BackboneShapes) -> set[tuple[str, tuple[int, ...]]]:
    return {(site.key, site.tensor) for site in place.sites(shapes)}


def _restricting_kinds(
    names: tuple[str, ...],
    layers: tuple[int, ...],
    kinds: tuple[str, ...] | None,
    shapes: BackboneShapes,
) -> tuple[str, ...] | None:
    """The kinds, where they leave something out in these layers; else None."""
    present = {site.kind for site in Place(names, layers).sites(shapes)}
    if kinds is None or present <= set(kinds):
        return None
    return tuple(kind for kind in kinds if kind in present)


def _why_none(place: Place, shapes: BackboneShapes) -> str:
    if place.names == ("biases",):
        return (
            ": its linear layers and norms have none; method 'added-biases' or place 'norm' instead"
        )
    if place.layers is not None and Place(place.names, None, place.kinds).sites(shapes):
        return f" in {place.describe_layers()}"
    return ""


@lru_cache(maxsize=4096)
def _sites(row: PlaceRow, shapes: BackboneShapes) -> tuple[SiteShape, ...]:
    if not row.exists(shapes):
        return ()
    if row.attention is not None:
        return tuple(_attention_site(row.name, a, row.attention(a)) for a in shapes.attention)
    if row.ffn is not None:
        gate = row.name == "ffn.gate"
        return tuple(_ffn_site(row.name, f, row.ffn(f)) for f in shapes.ffn if f.gated or not gate)
    d_h, longest = shapes.d_embedding or shapes.hidden, shapes.longest_prompt
    return (SiteShape(row.name, row.name, None, d_h=d_h, longest=longest),)


@lru_cache(maxsize=256)
def _tensor_sites(
    names: tuple[str, ...], layers: tuple[int, ...] | None, shapes: BackboneShapes
) -> tuple[SiteShape, ...]:
    """Tensors of the body, each once, whole or (a fused bias with dead keys) its live part; with
    `layers` none of those outside them.
    """
    sites = []
    for tensor in shapes.tensors:
        if layers is not None and tensor.layer not in layers:
            continue
        bodies = {name: PLACES[name].body for name in names}
        entries = {name: body(tensor) for name, body in bodies.items() if body}
        name = max(entries, key=entries.__getitem__)
        if entries[name]:
            whole = entries[name] == tensor.parameters
            shape = tensor.shape if whole else (entries[name],)
            sites.append(SiteShape(tensor.name, name, tensor.layer, tensor=shape))
    return tuple(sites)


def _attention_site(name: str, shape: AttentionShape, widths: tuple[int, int]) -> SiteShape:
    d_projection, d_h = widths
    suffix = "@cross" if shape.kind == "cross" else ""
    return SiteShape(
        key=f"layers.{shape.layer}.{name}{suffix}",
        place=name,
        layer=shape.layer,
        d_h=d_h,
        d_sublayer=shape.d_out if name.startswith("residual") else shape.d_in,
        d_projection=d_projection,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        kind=shape.kind,
        has_bias=name in shape.biased,
    )


def _ffn_site(name: str, shape: FfnShape, widths: tuple[int, int]) -> SiteShape:
    d_projection, d_h = widths
    return SiteShape(
        key=f"layers.{shape.layer}.{name}",
        place=name,
        layer=shape.layer,
        d_h=d_h,
        d_sublayer=shape.d_in,
        d_projection=d_projection,
        kind=shape.kind,
        has_bias=name in shape.biased,
    )
