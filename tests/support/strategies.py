"""Random valid points of the design space, for property tests."""

from __future__ import annotations

from itertools import product

from hypothesis import strategies as st

from peftsearch.design.composition import (
    Add,
    Composition,
    Dora,
    Gated,
    RankStabilised,
    Scaled,
    SigmoidGate,
    TanhGate,
)
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import (
    Constant,
    Dense,
    Form,
    Gelu,
    Kronecker,
    Linear,
    Loreft,
    Prefix,
    PrefixRelu,
    Prompt,
    Relu,
    Rescale,
    Silu,
    Sparse,
    Swiglu,
    Vera,
)
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.validity import minimum_width, why_invalid
from peftsearch.errors import ConfigurationError

FORMS: list[Form] = [
    *(form(init=init) for form in (Linear, Relu, Gelu, Silu, Swiglu) for init in ("lora", "bert")),
    Linear("pissa"),
    Relu(bias=True),
    Prefix(),
    Prefix(init="normal"),
    Prefix(mlp=4),
    PrefixRelu(),
    Prompt(),
    Constant(),
    Rescale(),
    Loreft(),
    Kronecker(n=2),
    Vera(),
    Dense(),
    Sparse(),
]
PLACES = [
    *("attn.query", "attn.key", "attn.value", "attn.heads", "attn.out", "ffn.hidden", "ffn.out"),
    *("attn.query+value", "attn.query+key+value+out", "ffn.hidden+out", "attn.key+value"),
    *("residual.attn", "residual.ffn", "ffn.activated", "embedding"),
    *("biases", "norm", "biases+norm", "weights"),
]
INSERTIONS: list[Insertion] = [Parallel(), Parallel("projection_input"), Sequential()]
COMPOSITIONS: list[Composition] = [
    *(Add(), Scaled(4.0), Scaled("learned"), Gated(), RankStabilised(8.0)),
    *(SigmoidGate(), TanhGate(), Dora(2.0)),
]
_PLACELESS = ("biases", "norm", "biases+norm", "weights", "embedding")

VALID = [
    (form, place, insertion, composition)
    for form, place, insertion, composition in product(FORMS, PLACES, INSERTIONS, COMPOSITIONS)
    if why_invalid(form, Place.parse(place), insertion, composition) is None
]


@st.composite
def modifications(draw: st.DrawFn, layers: int = 2) -> Modification:
    """Any valid modification of a backbone of so many layers."""
    form, place, insertion, composition = draw(st.sampled_from(VALID))
    chosen = None
    if place not in _PLACELESS:
        subsets = st.sets(st.integers(0, layers - 1), min_size=1)
        chosen = draw(st.none() | subsets.map(lambda s: tuple(sorted(s))))
    width: int | tuple[int, ...] | None = None
    if form.width_symbol is not None:
        widths = st.integers(minimum_width(form, composition), 6)
        count = layers if chosen is None else len(chosen)
        width = draw(widths if place in _PLACELESS else widths | st.tuples(*[widths] * count))
    return Modification(
        form, Place(Place.parse(place).names, chosen), insertion, composition, width
    )


@st.composite
def configurations(draw: st.DrawFn, layers: int = 2, most: int = 3) -> Configuration:
    """Up to `most` modifications that do not clash, with any head and training."""
    chosen: list[Modification] = []
    for modification in draw(st.lists(modifications(layers), max_size=most)):
        try:
            Configuration((*chosen, modification))
        except ConfigurationError:
            continue
        chosen.append(modification)
    head = Head(
        draw(st.sampled_from(["first", "mean"])),
        draw(st.sampled_from(["none", "trained"])),
        draw(st.booleans()),
    )
    rates = st.floats(1e-6, 1.0)
    training = Training(
        lr=tuple((m.form.name, draw(rates)) for m in chosen),
        head_lr=draw(rates),
        batch_size=draw(st.integers(1, 256)),
        weight_decay=draw(st.floats(0, 1)),
        warmup=draw(st.floats(0, 1)),
    )
    return Configuration(tuple(chosen), head, training)
