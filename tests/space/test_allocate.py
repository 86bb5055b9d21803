"""Budgets → widths, over random structures, budgets and shares; and what may not be left out."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.design.form import Linear, Prefix, Relu
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.shapes import BackboneShapes
from peftsearch.space.allocate import Allocation, allocate, reachable
from peftsearch.space.encode import Replay, encode
from peftsearch.space.file.document import Document
from peftsearch.space.reach import RandomSuggestions
from peftsearch.space.space import Space
from support.spaces import shipped

RANDOM = settings(max_examples=150, deadline=None, derandomize=True)


@pytest.fixture(scope="module", params=["MiniLM", "tiny"])
def shapes(request: pytest.FixtureRequest) -> BackboneShapes:
    if request.param == "MiniLM":
        request.getfixturevalue("minilm")
        return load_shapes("demo:minilm")
    return load_shapes(str(request.getfixturevalue("tiny_bert")))


@pytest.fixture(scope="module")
def unified() -> Space:
    return shipped("unified")


def drawn(
    seed: int, unified: Space, shapes: BackboneShapes
) -> tuple[list[Modification], list[float], int, Allocation]:
    """Modifications, shares and a budget at random, and their solution."""
    source = random.Random(seed)
    depth, structure = unified.on(shapes).walk(RandomSuggestions(seed))
    scale = source.uniform(0.5, 8)
    filled = (s for s in structure if not s.is_empty)
    modifications = [s.modification(shapes, scale, depth).within(shapes) for s in filled]
    parts = [source.random() for m in modifications if m.has_width]
    shares = [part / sum(parts) for part in parts]
    budget = int(math.exp(source.uniform(0, math.log(shapes.body_parameters))))
    return modifications, shares, budget, allocate(modifications, shares, budget, shapes)


def site_of(modification: Modification) -> tuple[str, str]:
    return modification.form.name, str(modification.place)


@RANDOM
@given(seed=st.integers(0, 10**9))
def test_it_never_costs_more_than_the_budget(
    seed: int, unified: Space, shapes: BackboneShapes
) -> None:
    modifications, shares, budget, allocation = drawn(seed, unified, shapes)
    if not shares:  # nothing has a width: it costs what it costs
        assert allocation.modifications == tuple(modifications)
    elif allocation.fits:
        assert allocation.cost == sum(m.parameters(shapes) for m in allocation.modifications)
        assert allocation.cost <= budget
    else:
        assert allocation.modifications == ()
        assert allocation.cost > budget


@pytest.mark.slow
@RANDOM
@given(seed=st.integers(0, 10**9))
def test_widths_stay_within_their_bounds_and_layers_within_their_mask(
    seed: int, unified: Space, shapes: BackboneShapes
) -> None:
    modifications, _, _, allocation = drawn(seed, unified, shapes)
    asked = {site_of(m): m for m in modifications}
    for modification in allocation.modifications:
        mask = asked[site_of(modification)].place.layers_in(shapes)
        layers = modification.place.layers_in(shapes)
        assert layers == mask[len(mask) - len(layers) :], "thinning keeps the upper layers"
        if modification.has_width:
            width = modification.width
            widths = width if isinstance(width, tuple) else (width,)
            assert min(w or 0 for w in widths) >= modification.minimum_width
            assert max(w or 0 for w in widths) <= modification.maximum_width(shapes)
            assert list(widths) == sorted(w or 0 for w in widths), "surplus goes to upper layers"


@pytest.mark.slow
@RANDOM
@given(seed=st.integers(0, 10**9))
def test_the_order_of_the_places_does_not_matter(
    seed: int, unified: Space, shapes: BackboneShapes
) -> None:
    modifications, shares, budget, allocation = drawn(seed, unified, shapes)
    left = iter(shares)
    pairs = [(m, next(left) if m.has_width else None) for m in modifications]
    random.Random(seed).shuffle(pairs)
    again = allocate([m for m, _ in pairs], [s for _, s in pairs if s is not None], budget, shapes)
    assert set(again.modifications) == set(allocation.modifications)


@pytest.mark.slow
@RANDOM
@given(seed=st.integers(0, 10**9))
def test_a_budget_beyond_reach_buys_all_there_is(
    seed: int, unified: Space, shapes: BackboneShapes
) -> None:
    modifications, shares, _, _ = drawn(seed, unified, shapes)
    _, greatest = reachable(modifications, shapes)
    shares = [0.5 / len(shares) + share / 2 for share in shares]  # none too small to be kept
    assert allocate(modifications, shares, 100 * greatest, shapes).cost == greatest


@pytest.mark.parametrize(
    ("form", "place", "unit"),
    [
        (Linear(), "attn.query+value", lambda d, d_ff: 2 * (d + d)),
        (Relu(), "ffn.out", lambda d, d_ff: 2 * d),
        (Linear(), "ffn.hidden", lambda d, d_ff: d + d_ff),
        (Prefix(), "attn.heads", lambda d, d_ff: 2 * d),
    ],
)
def test_one_place_alone_spends_all_but_less_than_one_unit(
    form: Linear | Relu | Prefix,
    place: str,
    unit: Callable[[int, int], int],
    shapes: BackboneShapes,
) -> None:
    cost = unit(shapes.hidden, shapes.ffn[0].d_hidden)
    modification = Modification(form, Place.parse(place)).with_width(None)
    least, most = modification.minimum_width, modification.maximum_width(shapes)
    for budget in range(1, (most + 2) * shapes.layers * cost, max(1, cost * most // 97)):
        allocation = allocate([modification], [1.0], budget, shapes)
        units = min(budget // cost, most * shapes.layers)
        assert allocation.fits == (units >= least)
        assert allocation.cost == max(units, least) * cost


# -- what may not be left out ----------------------------------------------------------------------

MANDATORY = """schema: 1
budgets: {{tuned_pct: {{log: [0.005, 2]}}, epochs: 1}}
places: {{attn: {{at: [query+value, heads]}}, ffn: {{at: [out, hidden]}}, bias: {{at: biases}}}}
choices:
  attn: {{form: {attn}}}
  ffn: {{form: {ffn}}}
  bias: {{form: [none, constant]}}
train: {{lr: {{log: [1e-4, 1e-2]}}}}
forbid: {forbid}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attn", "ffn", "forbid"),
    [
        ("[none, linear, prefix]", "[relu, linear]", "[]"),
        ("[linear, prefix]", "relu", "[]"),
        ("[none, linear]", "[none, relu]", "[{attn.form: none, ffn.form: relu}]"),
    ],
)
def test_a_place_that_must_be_filled_is_never_left_out(
    attn: str, ffn: str, forbid: str, minilm: Path
) -> None:
    space = Space(Document("s", MANDATORY.format(attn=attn, ffn=ffn, forbid=forbid)))
    shapes = load_shapes("demo:minilm")
    source = RandomSuggestions(3)
    fitting = 0
    for _ in range(400):
        sample = space.decode(source, shapes)
        if sample.configuration is None:
            assert sample.log_excess > 0
            continue
        fitting += 1
        at = {
            name.split(".")[0] for m in sample.configuration.modifications for name in m.place.names
        }
        assert "ffn" in at or "none" in ffn
        assert "attn" in at or ("none" in attn and forbid == "[]") or at == {"biases"}
        params = encode(space, sample.configuration, shapes)
        assert space.decode(Replay(params), shapes).configuration == sample.configuration
    assert fitting > 100
