"""Depth: layers that a whole configuration stays within; nothing is offered twice or lost."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise, product

import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.design.configuration import Configuration
from peftsearch.design.modification import Modification
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import SpaceError
from peftsearch.policy.seeds import seeds_of
from peftsearch.space.coverage import coverage_of
from peftsearch.space.decode import decode
from peftsearch.space.encode import Replay, encode
from peftsearch.space.file.document import Document
from peftsearch.space.layer_masks import DEPTHS, LAYER_MASKS
from peftsearch.space.random_samples import RandomSuggestions, draw_samples
from peftsearch.space.space import Space
from peftsearch.space.structures.slot_structure import SlotStructure
from peftsearch.space.structures.slots import PlacedSlot
from peftsearch.space.structures.tree import StructureTree
from support.shapes import small
from support.spaces import shipped

BEGIN = "schema: 1\nbudgets: {tuned_pct: {log: [0.01, 5]}, epochs: 1}\n"
SLOTS = """\
places:
  attn: {at: [query+value, heads], layers: [all, upper_half, every_other]}
  ffn: {at: out, layers: [all, every_other]}
  body: {at: [biases, norm]}
  input: {at: embedding}
choices:
  attn: {form: [none, linear]}
  ffn: {form: [none, relu]}
  body: {form: [none, constant]}
  input: {form: [none, prompt], composition: gated}
"""
ALL = "depth: [all, upper_half, upper_third, last]\n"


def space_of(text: str) -> Space:
    return Space(Document("s.yaml", BEGIN + text))


@lru_cache
def bert() -> BackboneShapes:
    """12 layers."""
    return load_shapes("config:bert-base")


def layers_of(modification: Modification, shapes: BackboneShapes) -> set[int | None]:
    return {site.layer for site, _ in modification.sources(shapes)}


def walked(
    tree: StructureTree[PlacedSlot], chosen: tuple[SlotStructure, ...] = ()
) -> Iterator[frozenset[object]]:
    """Every structure of a depth, as the set of what it tunes: by brute force."""
    if len(chosen) == len(tree.slots):
        yield frozenset(
            (slot.written[one], slot.written[one].place.layers)
            for slot, one in zip(tree.slots, chosen, strict=True)
            if not one.is_empty
        )
        return
    for one in tree.allowed(chosen):
        yield from walked(tree, (*chosen, one))


@pytest.mark.parametrize("layers", range(1, 49))
def test_every_depth_is_inside_those_before_it_and_holds_the_last_layer(layers: int) -> None:
    chosen = [set(LAYER_MASKS[depth](layers)) for depth in DEPTHS]
    assert chosen[0] == set(range(layers))
    for wide, narrow in pairwise(chosen):
        assert narrow <= wide
        assert layers - 1 in narrow


def test_no_structure_is_offered_in_two_depths_and_their_number_is_as_counted() -> None:
    placed = space_of(ALL + SLOTS).on(bert())
    found = [one for tree in placed.by_depth.values() for one in walked(tree)]
    assert len(set(found)) == len(found) == placed.count_structures()


def test_every_way_to_cut_a_structure_to_a_depth_is_offered_somewhere() -> None:
    """The oracle cuts layers by hand: every structure of the space without a depth, in each one."""
    shapes = bert()
    placed = space_of(ALL + SLOTS).on(shapes)
    found = {one for tree in placed.by_depth.values() for one in walked(tree)}
    uncut = space_of(SLOTS).on(shapes)
    expected = set()
    for structure, depth in product(walked(uncut.tree), DEPTHS):
        kept = set(LAYER_MASKS[depth](12))
        written = [cut(m, kept, shapes) for m, _ in structure]
        if all(m is not None for m in written):
            expected.add(frozenset((m, m.place.layers) for m in written if m is not None))
    assert found == expected


def cut(modification: Modification, kept: set[int], shapes: BackboneShapes) -> Modification | None:
    if len(kept) == 12:
        return modification
    left = tuple(layer for layer in layers_of(modification, shapes) if layer in kept)
    if not left or str(modification.place) == "embedding":
        return None
    return modification.on(tuple(sorted(left))).within(shapes)


@pytest.mark.slow
def test_a_sample_stays_within_its_depth_and_comes_back_exactly() -> None:
    shapes, space = bert(), space_of(ALL + SLOTS)
    source, drawn = RandomSuggestions(5), set()
    for _ in range(400):
        sample = decode(space.on(shapes), source)
        drawn.add(sample.depth)
        if sample.configuration is None:
            continue
        for modification in sample.configuration.modifications:
            allowed = set(LAYER_MASKS[sample.depth](12)) | (
                {None} if sample.depth == "all" else set()
            )
            assert layers_of(modification, shapes) <= allowed
        params = encode(space.on(shapes), sample.configuration)
        assert decode(space.on(shapes), Replay(params)).configuration == sample.configuration
    assert drawn == set(DEPTHS)


def test_a_prompt_is_offered_with_all_layers_alone() -> None:
    trees = space_of(ALL + SLOTS).on(bert()).by_depth
    has = {d: any(s.form == "prompt" for s in o.slots[-1].structures) for d, o in trees.items()}
    assert has == {"all": True, "upper_half": False, "upper_third": False, "last": False}


def test_depths_that_come_to_the_same_layers_are_one() -> None:
    three = small("bert")
    assert three.layers == 3
    assert list(space_of(ALL + SLOTS).on(three).by_depth) == ["all", "upper_half", "upper_third"]
    only = space_of("depth: [upper_third, last]\n" + SLOTS)
    assert list(only.on(three).by_depth) == ["upper_third"]
    assert "depth" not in encode(only.on(three), trainable(only, three)[0])


def trainable(space: Space, shapes: BackboneShapes) -> list[Configuration]:
    return draw_samples(space.on(shapes)).configurations


def test_a_depth_without_a_structure_is_not_offered() -> None:
    prompts = """\
depth: [all, last]
places: {input: {at: embedding}}
choices: {input: {form: prompt, composition: gated}}
"""
    assert list(space_of(prompts).on(bert()).by_depth) == ["all"]


@pytest.mark.slow
def test_in_an_encoder_decoder_a_depth_is_of_both_stacks() -> None:
    shapes = load_shapes("config:bart-large")
    for one in trainable(space_of("depth: last\n" + SLOTS), shapes):
        assert {x for m in one.modifications for x in layers_of(m, shapes)} <= {11, 23}


@pytest.mark.slow
def test_a_space_without_the_key_is_what_it_was() -> None:
    space = space_of(SLOTS)
    assert space.hash == "1a8a9d67a1fdf98f", "studies begun before the key go on"
    assert "depth" not in space.file.to_plain()
    assert space_of("depth: all\n" + SLOTS).hash == space.hash
    assert "depth" not in encode(space.on(bert()), trainable(space, bert())[0])
    assert coverage_of(space, bert()).depths == ()


def test_the_counts_of_each_depth_are_told() -> None:
    space = space_of(ALL + SLOTS)
    lines = coverage_of(space, bert()).depths
    assert [line.split(": ")[0] for line in lines] == [f"within {depth}" for depth in DEPTHS]
    counts = [int(line.split()[2].replace(",", "")) for line in lines]
    assert sum(counts) == space.on(bert()).count_structures()


def test_an_unknown_depth_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpaceError, match=r"s.yaml:3: depth: depth 'uper_half' unknown; did you"):
        space_of("depth: [all, uper_half]\n" + SLOTS)


@pytest.mark.slow
def test_seeds_of_unified_are_those_of_a_space_without_a_depth() -> None:
    shapes = bert()
    seeds = seeds_of(shipped("unified"), shapes)
    text = shipped("unified").document.text
    without = "\n".join(line for line in text.splitlines() if not line.startswith("depth:"))
    plain = seeds_of(Space(Document("unified.yaml", without)), shapes)
    assert [(s.label, s.configuration) for s in seeds] == [
        (s.label, s.configuration) for s in plain
    ]
    assert [s.params is None for s in seeds] == [s.params is None for s in plain]


@pytest.mark.slow
def test_most_samples_of_unified_leave_lower_layers_alone() -> None:
    """Of 498 random ones 407 on MiniLM's 6 layers; without a depth 169 of 497."""
    found = trainable(shipped("unified"), bert())
    assert sum(one.frozen_layers(bert()) > 0 for one in found) > 0.7 * len(found)
