"""The rules of docs/design-space.md: combinations that are refused, and the reasons."""

from __future__ import annotations

import pytest

from peftsearch.design.composition import COMPOSITIONS, Add, Composition, Gated, Scaled
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import FORMS, Constant, Dense, Form, Linear, Prefix, Relu
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.validity import why_invalid
from peftsearch.errors import ConfigurationError
from support.strategies import VALID

PARALLEL, PROJECTION, SEQUENTIAL = Parallel(), Parallel("projection_input"), Sequential()
ADD, GATED = Add(), Gated()


@pytest.mark.parametrize(
    ("rule", "form", "place", "insertion", "composition", "reason"),
    [
        (1, Relu(), "attn.heads", PARALLEL, GATED, "needs the softmax form"),
        (1, Prefix(), "ffn.out", PARALLEL, GATED, "belongs at attn.heads"),
        (2, Prefix(), "attn.heads", SEQUENTIAL, GATED, "reads the queries"),
        (2, Prefix(), "attn.query", PARALLEL, ADD, "belongs at attn.heads"),
        (6, Relu(), "attn.out", PARALLEL, ADD, "absorbs the up-projection"),
        (6, Relu(), "attn.heads", SEQUENTIAL, ADD, "absorbs both projections"),
        (6, Relu(), "attn.query", SEQUENTIAL, ADD, "absorbs the down-projection"),
        (6, Linear(), "attn.out", SEQUENTIAL, ADD, "LoRA on W_o"),
        (6, Relu(), "attn.out", PROJECTION, ADD, "sequential at attn.out"),
        (6, Relu(), "attn.query", PROJECTION, ADD, "write sublayer_input"),
        (7, Constant(), "attn.key", PARALLEL, ADD, "gets no gradient"),
        (7, Relu(bias=True), "attn.key", PARALLEL, ADD, "gets no gradient"),
        (7, Constant(), "attn.value", PARALLEL, ADD, "write attn.out"),
        (0, Constant(), "ffn.out", PARALLEL, Scaled(2), "a scale is absorbed"),
        (0, Dense(), "ffn.out", PARALLEL, ADD, "belongs at place 'weights'"),
        (0, Relu(), "biases", PARALLEL, ADD, "constant form only"),
        (0, Relu(), "residual.ffn", PARALLEL, ADD, "modified sequentially"),
    ],
)
def test_an_invalid_or_repeated_combination_is_refused_with_the_reason(
    rule: int,
    form: Form,
    place: str,
    insertion: Insertion,
    composition: Composition,
    reason: str,
) -> None:
    assert reason in str(why_invalid(form, Place.parse(place), insertion, composition))
    width = 4 if form.width_symbol else None
    with pytest.raises(ConfigurationError, match=reason.replace("(", r"\(")):
        Modification(form, Place.parse(place), insertion, composition, width)


def test_rule_3_an_ungated_prefix_of_one_vector_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="width 1 is below 2"):
        Modification(Prefix(), Place.parse("attn.heads"), width=1)
    assert Modification(Prefix(), Place.parse("attn.heads"), composition=GATED, width=1).width == 1


def test_rule_4_a_scale_of_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="write composition 'add'"):
        Scaled(1.0)


def test_rule_6_two_modules_of_one_form_at_one_site_are_one() -> None:
    first = Modification(Relu(), Place(("ffn.out",), (0, 1)), width=4)
    second = Modification(Relu(), Place(("ffn.out",), (1,)), composition=Scaled(2), width=4)
    with pytest.raises(ConfigurationError, match="the sum of their widths"):
        Configuration((first, second))
    elsewhere = second.on((2,))
    assert len(Configuration((first, elsewhere)).modifications) == 2


def test_full_fine_tuning_stands_alone() -> None:
    full = Modification(Dense(), Place.parse("weights"))
    with pytest.raises(ConfigurationError, match="contains every other"):
        Configuration((full, Modification(Relu(), Place.parse("ffn.out"), width=2)))


def test_every_form_place_insertion_and_composition_occurs_in_some_valid_combination() -> None:
    assert {form.name for form, *_ in VALID} == FORMS.keys()
    assert {type(insertion).__name__ for _, _, insertion, _ in VALID} == {"Parallel", "Sequential"}
    assert {composition.name for *_, composition in VALID} == COMPOSITIONS.keys()
    assert {place for _, place, *_ in VALID} >= {"attn.key", "residual.attn", "ffn.hidden+out"}


def test_places_of_different_sublayers_cannot_be_joined() -> None:
    with pytest.raises(ConfigurationError, match="joins different sub-layers"):
        Place(("attn.query", "ffn.out"))
