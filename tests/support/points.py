"""The points of the matrix: every method, and options that no method has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from peftsearch.design.composition import RankStabilised, Scaled
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Linear, Relu
from peftsearch.design.insertion import Parallel, Sequential
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.shapes import BackboneShapes

__all__ = ["OPTIONS", "POINT_NAMES", "Option", "point", "title"]


@dataclass(frozen=True)
class Option:
    """Options that a space may choose though no published method does."""

    title: str
    modification: Callable[[BackboneShapes], Modification]


def _every_other_layer(shapes: BackboneShapes) -> Modification:
    place = Place.parse("attn.query+value", tuple(range(1, shapes.layers, 2)))
    return Modification(Linear(), place, composition=Scaled(2), width=8)


def _width_a_layer(shapes: BackboneShapes) -> Modification:
    widths = tuple(range(2, 2 + shapes.layers))
    place = Place.parse("attn.query+value")
    return Modification(Linear(), place, composition=RankStabilised(8), width=widths)


def _across(shapes: BackboneShapes) -> Modification:
    return Modification(Linear(), Place.parse("attn.query+value@cross"), width=8)


def _after_attention(shapes: BackboneShapes) -> Modification:
    return Modification(Relu(init="bert"), Place.parse("residual.attn"), Sequential(), width=8)


def _from_the_stream(shapes: BackboneShapes) -> Modification:
    insertion = Parallel("residual_stream")
    return Modification(Relu(init="bert"), Place.parse("ffn.out"), insertion, width=8)


OPTIONS = {
    "every-other-layer": Option("LoRA in every other layer", _every_other_layer),
    "width-a-layer": Option("rank-stabilised LoRA, a width a layer", _width_a_layer),
    "cross-attention": Option("LoRA in cross-attention alone", _across),
    "residual-attn": Option("adapter after attention's add & norm", _after_attention),
    "residual-stream": Option("parallel adapter that reads the residual stream", _from_the_stream),
}
POINT_NAMES = (*(name for name, method in METHODS.items() if method.modifications), *OPTIONS)
"""All but those that train a head alone."""


@cache
def point(name: str, shapes: BackboneShapes) -> Configuration:
    """A method with its usual widths (a sparse change is of a tenth of the body), or an option."""
    if name in OPTIONS:
        return Configuration((OPTIONS[name].modification(shapes),))
    configuration = METHODS[name].configuration()
    modifications = tuple(
        replace(m, width=shapes.body_parameters // 10) if m.form.name == "sparse" else m
        for m in configuration.modifications
    )
    return replace(configuration, modifications=modifications)


def title(name: str) -> str:
    """For people."""
    return OPTIONS[name].title if name in OPTIONS else METHODS[name].title
