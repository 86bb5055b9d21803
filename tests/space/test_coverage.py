"""Every shipped space on every family: what can be done there is more than nothing, the rest has a
reason, and a search of it could begin.
"""

from __future__ import annotations

from functools import lru_cache

import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.backbone.loading.reference_configs import REFERENCES
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError
from peftsearch.policy.seeds import seeds_of
from peftsearch.space.coverage import coverage_of
from peftsearch.space.decode import decode
from peftsearch.space.encode import Replay
from peftsearch.space.file.document import Document
from peftsearch.space.file.shipped import shipped_spaces
from peftsearch.space.random_samples import RandomSuggestions
from peftsearch.space.space import Space
from support.spaces import shipped


@lru_cache
def shapes_named(name: str) -> BackboneShapes:
    return load_shapes(f"config:{name}")


def space_of(slot: str) -> Space:
    text = f"schema: 1\nbudgets: {{tuned_pct: {{log: [0.01, 1]}}, epochs: 1}}\n{slot}"
    return Space(Document("s.yaml", text))


@pytest.mark.slow
@pytest.mark.parametrize("model", REFERENCES)
@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_can_be_searched_on_every_family(name: str, model: str) -> None:
    space, shapes = shipped(name), shapes_named(model)
    coverage = coverage_of(space, shapes)
    placed = space.on(shapes)
    assert 0 < coverage.structures <= coverage.of
    assert (coverage.structures == coverage.of) == (not any(s.left_out for s in placed.slots))
    if coverage.structures < coverage.of:
        assert coverage.reasons
    for seed in seeds_of(space, shapes):
        if seed.params is not None:
            assert decode(space.on(shapes), Replay(seed.params)).configuration == seed.configuration
    source = RandomSuggestions(3)
    samples = [decode(space.on(shapes), source) for _ in range(20)]
    trainable = [s.configuration for s in samples if s.configuration is not None]
    assert len(trainable) >= 10
    for configuration in trainable:
        assert configuration.within(shapes) == configuration
        assert 0 < configuration.tuned_parameters(shapes) < shapes.body_parameters


def test_what_a_family_cannot_take_is_counted_with_its_reason() -> None:
    coverage = coverage_of(shipped("autopeft"), shapes_named("deberta-v3-base"))
    (reason,) = coverage.reasons
    assert reason.startswith(
        "prefix: 4 left out: the attention of DeBERTa-v2 takes no further keys"
    )
    assert "prefix: 1 of 5 choices" in coverage.slots


def test_layer_masks_that_are_one_in_a_small_stack_are_offered_once() -> None:
    slot = "places: {ffn: {at: out, layers: [all, upper_half, last, every_other, lower_half]}}\n"
    space = space_of(slot + "choices: {ffn: {form: relu}}")
    from peftsearch.backbone.loading.load import shapes_of
    from support.shapes import config_of

    two = shapes_of(config_of("bert", num_hidden_layers=2))
    # Of two layers the upper half is the last, and so is every other one.
    assert [s.layers for s in space.on(two).slots[0].structures] == [
        "all",
        "upper_half",
        "lower_half",
    ]


def test_masks_are_taken_of_each_stack() -> None:
    slot = "places: {ffn: {at: out, layers: [upper_half, last]}}\nchoices: {ffn: {form: relu}}"
    shapes = shapes_named("bart-large")
    upper, last = space_of(slot).on(shapes).slots[0].written.values()
    assert upper.place.layers == (*range(6, 12), *range(18, 24))
    assert last.place.layers == (11, 23)


def test_a_space_of_which_nothing_is_left_is_refused_with_the_command_that_says_why() -> None:
    slot = "places: {attn: {at: heads@cross}}\nchoices: {attn: {form: relu}}"
    space, shapes = space_of(slot), shapes_named("bert-base")
    with pytest.raises(
        ConfigurationError, match=r"BERT supports no configuration of space 's'.*check s"
    ):
        decode(space.on(shapes), RandomSuggestions(0))
    assert coverage_of(space, shapes).structures == 0
    assert "no place 'attn.heads@cross'" in coverage_of(space, shapes).reasons[0]
