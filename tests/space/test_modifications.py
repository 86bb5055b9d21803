"""The key `modifications`: how many a configuration has is chosen first, by the file's shares."""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from typing import Any

import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import SpaceError
from peftsearch.space.decode import decode, walk
from peftsearch.space.encode import NotExpressible, Replay, encode
from peftsearch.space.file.document import Document
from peftsearch.space.placed import PlacedSpace
from peftsearch.space.random_samples import RandomSuggestions, draw_samples
from peftsearch.space.space import Space
from peftsearch.space.structures.tree import Structure
from support.spaces import shipped

BEGIN = "schema: 1\nbudgets: {tuned_pct: {log: [0.1, 10]}, epochs: 1}\n"
SLOTS = """\
depth: [all, last]
places:
  attn: {at: [query+value, heads], layers: [all, last]}
  ffn: {at: [out]}
  body: {at: [biases, norm]}
  input: {at: embedding}
choices:
  attn: {form: [none, linear, prefix], composition: [add, gated]}
  ffn: {form: [none, relu]}
  body: {form: [none, constant]}
  input: {form: [none, prompt], composition: gated}
forbid:
  - {attn.form: prefix, input.form: prompt}
  - {ffn.form: relu, body.at: biases}
"""
SHARES = "modifications: {1: 0.5, 2: 0.3, 3: 0.2}\n"


def space_of(text: str) -> Space:
    return Space(Document("s.yaml", BEGIN + text))


@lru_cache
def bert() -> BackboneShapes:
    return load_shapes("config:bert-base")


def filled(structure: Structure) -> int:
    return sum(not one.is_empty for one in structure)


def every_structure(placed: PlacedSpace) -> set[tuple[str, Structure]]:
    """Every structure of a space whose slots choose for themselves, with its depth."""
    found = set()
    for depth, tree in placed.by_depth.items():
        chosen: list[Structure] = [()]
        for _ in tree.slots:
            chosen = [(*c, one) for c in chosen for one in tree.allowed(c)]
        found |= {(depth, structure) for structure in chosen}
    return found


class Listener(RandomSuggestions):
    """Random suggestions that remember what was offered."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.offered: dict[str, set[tuple[Any, ...]]] = {}

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        self.offered.setdefault(name, set()).add(tuple(choices))
        return super().suggest_categorical(name, choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.offered.setdefault(name, set()).add((low, high, log))
        return super().suggest_float(name, low, high, log=log)


def assert_shares(counts: Counter[int], shares: dict[int, float]) -> None:
    """Each within four standard errors of a binomial share."""
    total = sum(counts.values())
    assert counts.keys() <= shares.keys()
    for number, share in shares.items():
        error = math.sqrt(share * (1 - share) / total)
        assert abs(counts[number] / total - share) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unified", "tiny-budget"])
def test_half_of_the_samples_have_one_modification(name: str) -> None:
    space, source = shipped(name), RandomSuggestions(1)
    placed = space.on(bert())
    counts = Counter(filled(walk(placed, source)[1]) for _ in range(2000))
    assert space.file.modifications == {1: 0.5, 2: 0.3, 3: 0.2}
    assert_shares(counts, space.file.modifications)


@pytest.mark.slow
def test_sets_of_slots_of_one_number_are_equally_likely() -> None:
    placed, source = shipped("unified").on(bert()), RandomSuggestions(2)
    names = [slot.name for slot in placed.slots]
    pairs: Counter[tuple[str, ...]] = Counter()
    for _ in range(4000):
        depth, structure = walk(placed, source)
        if depth == "all" and filled(structure) == 2:
            pairs[tuple(n for n, s in zip(names, structure, strict=True) if not s.is_empty)] += 1
    expected = sum(pairs.values()) / 15
    assert len(pairs) == 15
    assert all(abs(n - expected) < 4.5 * math.sqrt(expected) for n in pairs.values())


@pytest.mark.slow
def test_structures_are_those_without_the_key_that_have_as_many_modifications() -> None:
    expected = {
        (depth, structure)
        for depth, structure in every_structure(space_of(SLOTS).on(bert()))
        if filled(structure) <= 2
    }
    placed = space_of("modifications: {1: 3, 2: 1}\n" + SLOTS).on(bert())
    source = RandomSuggestions(3)
    assert {walk(placed, source) for _ in range(4000)} == expected
    assert placed.count_structures() == len(expected)


@pytest.mark.slow
def test_every_structure_of_unified_with_few_modifications_is_still_counted() -> None:
    """Without the key, the structures that fill a set of slots are those that the key's tree has:
    summed over every set they are all, so none is lost and none counted twice.
    """
    text = shipped("unified").document.text
    lines = [line for line in text.splitlines() if not line.startswith("modifications:")]
    plain = Space(Document("unified.yaml", "\n".join(lines)))
    whole = Space(Document("unified.yaml", "\n".join([*lines, f"modifications: {[*range(1, 7)]}"])))
    assert whole.count_structures() == plain.count_structures()
    for depth, tree in plain.on(bert()).by_depth.items():
        same = whole.on(bert()).by_depth[depth]
        assert same.count() == tree.count()
        few = shipped("unified").on(bert()).by_depth[depth]
        assert few.filled_slots is not None
        assert same.filled_slots is not None
        assert set(few.filled_slots.all_ways) == {
            way for way in same.filled_slots.all_ways if len(way) <= 3
        }


@pytest.mark.slow
def test_the_parameters_offer_the_same_choices_in_every_trial() -> None:
    placed, source = space_of(SHARES + SLOTS).on(bert()), Listener(4)
    for _ in range(1000):
        decode(placed, source)
    assert all(len(offers) == 1 for offers in source.offered.values())
    assert source.offered["modifications"] == {(0.0, 1.0, False)}
    assert source.offered["slots.1"] == {("attn", "ffn", "body", "input")}
    assert source.offered["slots.1{attn|ffn|body}"] == {("attn", "ffn", "body")}
    assert source.offered["attn.form"] == {("linear", "prefix")}
    assert not [name for name in source.offered if "none" in name]


@pytest.mark.slow
@pytest.mark.parametrize("text", [SHARES + SLOTS, "modifications: 2\n" + SLOTS])
def test_decoding_what_was_encoded_gives_the_configuration_back(text: str) -> None:
    placed, source = space_of(text).on(bert()), RandomSuggestions(5)
    for _ in range(300):
        configuration = decode(placed, source).configuration
        if configuration is None:
            continue
        params = encode(placed, configuration)
        assert decode(placed, Replay(params)).configuration == configuration


@pytest.mark.slow
def test_what_has_too_many_modifications_is_not_in_the_space() -> None:
    three = space_of("modifications: 3\n" + SLOTS).on(bert())
    one = space_of("modifications: 1\n" + SLOTS).on(bert())
    (first, *_) = (c for c in draw_samples(three).configurations if len(c.modifications) == 3)
    assert encode(three, first)
    with pytest.raises(NotExpressible, match="does not contain"):
        encode(one, first)


@pytest.mark.slow
def test_a_budget_too_small_for_two_never_gives_a_number_that_is_not_listed() -> None:
    begin = BEGIN.replace("[0.1, 10]", "[0.01, 0.1]")
    two = Space(Document("s.yaml", f"{begin}modifications: 2\n{SLOTS}")).on(bert())
    free = Space(Document("s.yaml", f"{begin}modifications: [1, 2]\n{SLOTS}")).on(bert())
    source, dropped = RandomSuggestions(0), 0
    for _ in range(200):
        sample = decode(free, source)
        if sample.configuration is not None:
            dropped += len(sample.configuration.modifications) < filled(sample.structure)
    assert dropped > 10, "where one is listed, a slot whose share buys nothing is left empty"
    drawn = draw_samples(two).configurations
    assert {len(one.modifications) for one in drawn} == {2}


def test_a_slot_that_is_always_filled_is_in_every_set() -> None:
    always = SLOTS.replace("ffn: {form: [none, relu]}", "ffn: {form: relu}")
    space = space_of("modifications: [1, 2]\n" + always)
    tree = space.tree
    assert tree.filled_slots is not None
    assert tree.filled_slots.ways == {
        1: [("ffn",)],
        2: [("attn", "ffn"), ("ffn", "body"), ("ffn", "input")],
    }
    both = always.replace("body: {form: [none, constant]}", "body: {form: constant}")
    never = space_of("modifications: [1, 2]\n" + both)
    assert never.unused() == ["modifications: 1"]
    assert never.tree.filled_slots is not None
    assert never.tree.filled_slots.all_ways == [("ffn", "body")]


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("{0: 1}", "'0' is not a whole number of modifications"),
        ("{1.5: 1}", "'1.5' is not a whole number of modifications"),
        ("{-1: 1}", "'-1' is not a whole number of modifications"),
        ("many", "'many' is not a whole number of modifications"),
        ("[true]", "'True' is not a whole number of modifications"),
        ("[[1]]", r"'\[1\]' is not a whole number of modifications"),
        ("{1: 0}", "the share of 1 must be a number above 0"),
        ("{1: -0.5}", "the share of 1 must be a number above 0"),
        ("{1: .nan}", "the share of 1 must be a number above 0"),
        ("{1: half}", "the share of 1 must be a number above 0"),
        ("[1, 1]", "a number of modifications appears twice"),
        ("{}", "no number of modifications is given"),
        ("[]", "no number of modifications is given"),
        ("{1: 0.5, 5: 0.5}", "5 modifications need 5 slots; there are 4"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(written: str, sentence: str) -> None:
    with pytest.raises(SpaceError, match=rf"s.yaml:3: modifications: {sentence}"):
        space_of(f"modifications: {written}\n" + SLOTS)


def test_too_many_ways_to_choose_slots_are_refused() -> None:
    names = [f"s{i}" for i in range(20)]
    places = ", ".join(f"{n}: {{at: attn.query}}" for n in names)
    choices = ", ".join(f"{n}: {{form: [none, linear]}}" for n in names)
    with pytest.raises(SpaceError, match="5 of 20 slots can be chosen in more than 1,000 ways"):
        space_of(f"modifications: 5\nplaces: {{{places}}}\nchoices: {{{choices}}}\n")


def test_a_number_without_a_structure_is_refused_if_there_is_no_other() -> None:
    text = SLOTS.replace("[none, relu]", "relu").replace("[none, constant]", "constant")
    text = text[: text.index("forbid:")]
    with pytest.raises(SpaceError, match=r"s.yaml:3: modifications: .*exclude every structure"):
        space_of("modifications: 1\n" + text)


def test_a_space_without_the_key_is_what_it_was() -> None:
    space = space_of(SLOTS)
    assert "modifications" not in space.file.to_plain()
    source = Listener(6)
    for _ in range(100):
        walk(space.on(bert()), source)
    assert not {"modifications", "slots.1"} & source.offered.keys()
    assert source.offered["attn.form"] == {("none", "linear", "prefix")}


def test_it_is_written_out_as_it_was_read() -> None:
    space = space_of("modifications: {2: 0.5, 1: 0.5}\n" + SLOTS)
    assert "modifications: {1: 0.5, 2: 0.5}\n" in space.to_yaml()
    again = Space(Document("s.yaml", space.to_yaml()))
    assert again.file == space.file
    assert again.hash == space.hash
    assert space.hash != space_of(SLOTS).hash
