"""Dimension 2, the modified representation: which h, in which layers (He et al. 2022, Table 1).

A place names one representation (`attn.heads`) or joins several of one sub-layer that share one
width (`attn.query+value`). A new place is one row of `PLACES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peftsearch.design.shapes import AttentionShape, BackboneShapes, FfnShape, SiteShape
from peftsearch.errors import ConfigurationError, did_you_mean

__all__ = ["PLACES", "Place", "PlaceRow"]

_Attention = Callable[[AttentionShape], tuple[int, int]]
_Ffn = Callable[[FfnShape], tuple[int, int]]


@dataclass(frozen=True)
class PlaceRow:
    """What a place is: its sub-layer, and (d_projection, d_h) from the sub-layer's shape."""

    name: str
    meaning: str
    attention: _Attention | None = None
    ffn: _Ffn | None = None
    body: str | None = None
    """`biases` or `weights`: tensors of the body rather than a representation."""

    @property
    def sublayer(self) -> str:
        return self.name.split(".")[0]


PLACES: dict[str, PlaceRow] = {
    row.name: row
    for row in (
        PlaceRow("attn.query", "queries, before heads are split", lambda a: (a.d_in, a.d_query)),
        PlaceRow("attn.key", "keys", lambda a: (a.d_in, a.d_key)),
        PlaceRow("attn.value", "values", lambda a: (a.d_in, a.d_key)),
        PlaceRow("attn.heads", "concatenated heads, before W_o", lambda a: (a.d_in, a.d_query)),
        PlaceRow("attn.out", "attention output, after W_o", lambda a: (a.d_query, a.d_out)),
        PlaceRow(
            "ffn.hidden", "ffn hidden, before activation", None, lambda f: (f.d_in, f.d_hidden)
        ),
        PlaceRow("ffn.out", "ffn output", None, lambda f: (f.d_hidden, f.d_out)),
        PlaceRow("residual.attn", "after attention's add & norm", lambda a: (a.d_out, a.d_out)),
        PlaceRow("residual.ffn", "after ffn's add & norm", None, lambda f: (f.d_out, f.d_out)),
        PlaceRow("biases", "every bias of the body that gets a gradient", body="biases"),
        PlaceRow("weights", "every tensor of the body", body="weights"),
    )
}
_ORDER = {name: index for index, name in enumerate(PLACES)}


@dataclass(frozen=True)
class Place:
    """Names of `PLACES` (in table order, joined within one sub-layer); layers, None for all."""

    names: tuple[str, ...]
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in PLACES:
                raise ConfigurationError(f"place '{name}' unknown{did_you_mean(name, PLACES)}")
        if not self.names or len(set(self.names)) != len(self.names):
            raise ConfigurationError(f"place '{self}' names nothing, or one representation twice")
        if len({PLACES[name].sublayer for name in self.names}) > 1:
            raise ConfigurationError(f"place '{self}' joins different sub-layers: use two places")
        object.__setattr__(self, "names", tuple(sorted(self.names, key=_ORDER.__getitem__)))
        if self.layers is not None:
            if not all(type(layer) is int for layer in self.layers):
                raise ConfigurationError(f"place '{self}': layers must be whole numbers")
            if not self.layers or min(self.layers) < 0:
                raise ConfigurationError(f"place '{self}' has no layers: name at least one")
            object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))

    @classmethod
    def parse(cls, text: str, layers: tuple[int, ...] | None = None) -> Place:
        """`attn.query+value` → Place(("attn.query", "attn.value"))."""
        first, *others = text.split("+")
        sublayer = first.split(".")[0]
        return cls((first, *(o if "." in o else f"{sublayer}.{o}" for o in others)), layers)

    def __str__(self) -> str:
        first, *others = self.names or ("",)
        return "+".join([first, *(name.split(".")[-1] for name in others)])

    def within(self, layers: int) -> Place:
        """The same place in a backbone of so many layers; all of them are written as None."""
        if self.layers is None:
            return self
        if self.layers[-1] >= layers:
            raise ConfigurationError(
                f"place '{self}' names layer {self.layers[-1]}, but the backbone has layers "
                f"0 to {layers - 1}"
            )
        return Place(self.names, None) if len(self.layers) == layers else self

    def sites(self, shapes: BackboneShapes) -> tuple[SiteShape, ...]:
        """Every site of this place in a backbone, lowest layer first."""
        return tuple(
            site
            for name in self.names
            for site in _sites(PLACES[name], shapes)
            if self.layers is None or site.layer in self.layers
        )

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


def _sites(row: PlaceRow, shapes: BackboneShapes) -> list[SiteShape]:
    if row.body is not None:
        return [
            SiteShape(t.name, row.name, t.layer, tensor=t.shape)
            for t in shapes.tensors
            if row.body == "weights" or (t.is_bias and not t.dead)
        ]
    if row.attention is not None:
        return [_attention_site(row.name, a, row.attention(a)) for a in shapes.attention]
    assert row.ffn is not None
    return [_ffn_site(row.name, f, row.ffn(f)) for f in shapes.ffn]


def _attention_site(name: str, shape: AttentionShape, widths: tuple[int, int]) -> SiteShape:
    d_projection, d_h = widths
    return SiteShape(
        key=f"layers.{shape.layer}.{name}",
        place=name,
        layer=shape.layer,
        d_h=d_h,
        d_sublayer=shape.d_in,
        d_projection=d_projection,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
    )


def _ffn_site(name: str, shape: FfnShape, widths: tuple[int, int]) -> SiteShape:
    d_projection, d_h = widths
    key = f"layers.{shape.layer}.{name}"
    return SiteShape(key, name, shape.layer, d_h, shape.d_in, d_projection)
