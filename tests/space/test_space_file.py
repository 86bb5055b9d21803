"""Space files: read strictly, with file and line; written back as an equal space."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftsearch.errors import SpaceError
from peftsearch.space.document import Document
from peftsearch.space.shipped import shipped_spaces
from peftsearch.space.space import Space

GOOD = """\
schema: 1
budgets: {tuned_pct: {log: [0.1, 10]}, epochs: 2}
places:
  attn: {at: [query+value, heads], layers: [all, last]}
  ffn: {at: [out]}
choices:
  attn:
    form: [none, linear, prefix]
    composition: [add, {scaled: {s: [2, learned]}}, gated]
  ffn: {form: [none, relu]}
train: {lr: {log: [1e-4, 1e-2]}}
forbid:
  - {attn.form: prefix, ffn.form: relu}
seed_with: [lora, {method: mam, tuned_pct: 1}]
"""


def space(text: str) -> Space:
    return Space(Document("s.yaml", text))


@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_written_out_reads_back_equal(name: str) -> None:
    original = Space(Document.read(shipped_spaces()[name]))
    again = space(original.to_yaml())
    assert again.file == original.file
    assert again.hash == original.hash
    assert again.count_structures() == original.count_structures()


def test_comments_and_spelling_do_not_change_the_hash() -> None:
    changed = GOOD.replace("schema: 1\n", "# a comment\nschema: 1\n").replace("0.1,", "1e-1,")
    assert space(changed).hash == space(GOOD).hash
    assert space(GOOD.replace("epochs: 2", "epochs: 3")).hash != space(GOOD).hash


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("choices:", "choises:", r"s.yaml:6: choises: unknown key; did you mean 'choices'\?"),
        ("linear,", "linaer,", r"s.yaml:8: choices.attn.form: form 'linaer' unknown; did you"),
        ("query+value", "quary+value", r"s.yaml:4: places.attn.at: place 'attn.quary' unknown"),
        ("at: [out]", "at: []", r"s.yaml:5: places.ffn.at: an empty list"),
        ("at: [out]", "at: 3", r"s.yaml:5: places.ffn.at: expected a name"),
        ("[0.1, 10]", "[10, 0.1]", r"s.yaml:2: budgets.tuned_pct: log \[10, 0.1\] is empty"),
        ("[0.1, 10]", "[0, 10]", r"s.yaml:2: budgets.tuned_pct: log \[0, 10\] must begin above 0"),
        ("[0.1, 10]", "[0.1, 1000]", r"s.yaml:2: budgets.tuned_pct: more than 100 %"),
        ("epochs: 2", "epochs: 2, max_steps: 9", r"s.yaml:2: budgets: give epochs or max_steps"),
        ("epochs: 2", "epochs: 2, rungs: [1, 0.5]", r"s.yaml:2: budgets.rungs: rungs \[1.0, 0.5\]"),
        ("epochs: 2", "epochs: two", r"s.yaml:2: budgets.epochs: "),
        ("[2, learned]", "[1, 2]", r"s.yaml:\d+: choices.attn.s: s=1 is plain addition"),
        ("[2, learned]", "[-2]", r"s.yaml:\d+: choices.attn.s: s=-2 must be a positive number"),
        ("{s: [2", "{t: [2", r"s.yaml:\d+: choices.attn: composition: scaled takes one key, s"),
        ("relu]", "relu, relu]", r"s.yaml:10: choices.ffn.form: a value stands twice"),
        ("ffn: {form", "fnf: {form", r"s.yaml:\d+: places.ffn: no choices for slot 'ffn'"),
        ("attn.form: prefix", "attn.from: prefix", r"s.yaml:13: forbid.0.attn.from: unknown"),
        ("attn.form: prefix", "attn.form: gelu", r"s.yaml:13: forbid.0.attn.form: 'gelu' is not"),
        ("[lora,", "[lorra,", r"s.yaml:14: seed_with.0.method: method 'lorra' unknown"),
        ("tuned_pct: 1}", "tuned_pct: -1}", r"s.yaml:14: seed_with.1.tuned_pct: "),
        ("schema: 1", "schema: 2", r"s.yaml:1: schema: "),
        ("schema: 1\n", "schema: 1\nschema: 1\n", r"s.yaml:2: found duplicate key"),
        ("train: {lr", "train: {rl", r"s.yaml:11: train.rl: unknown key; known: .*lr"),
        ("layers: [all, last]", "layers: [al]", r"s.yaml:4: places.attn.layers: layer mask 'al'"),
        ("places:\n", "places:\n\t", r"s.yaml:\d+: "),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(old: str, new: str, sentence: str) -> None:
    assert old in GOOD
    with pytest.raises(SpaceError, match=sentence) as caught:
        space(GOOD.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def test_slots_that_modify_one_representation_alike_are_refused() -> None:
    clash = GOOD.replace("{at: [out]}", "{at: [attn.heads]}").replace(
        "ffn: {form: [none, relu]}", "ffn: {form: [none, linear]}"
    )
    with pytest.raises(SpaceError, match=r"places.ffn: clashes with slot 'attn'"):
        space(clash.replace("prefix, ffn.form: relu", "prefix, ffn.form: linear"))


def test_a_space_that_forbids_everything_is_refused() -> None:
    with pytest.raises(SpaceError, match="nothing is left of the space"):
        space(
            GOOD.replace(
                "{attn.form: prefix, ffn.form: relu}",
                "{attn.form: linear}\n  - {attn.form: prefix}\n  - {attn.form: none}",
            )
        )


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "just text", "a: [", "- " * 3000, "\x00", "{" * 5000]
)
def test_what_is_no_space_at_all_is_refused(text: str) -> None:
    with pytest.raises(SpaceError, match=r"s.yaml:\d+: "):
        space(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_a_mutilated_space_is_read_or_refused_but_never_crashes(seed: int) -> None:
    source = random.Random(seed)
    text = source.choice([GOOD, shipped_spaces()["unified"].read_text(encoding="utf-8")])
    for _ in range(source.randint(1, 4)):
        start = source.randrange(len(text))
        end = min(len(text), start + source.randint(0, 12))
        junk = source.choice(
            ["", "x", ": ", "[", "}", "-1", "\n", "  ", "&a *a", "nan", "1e999", "'"]
        )
        text = text[:start] + junk + text[end:]
    try:
        outcome = f"{space(text).count_structures() > 0}"
    except SpaceError as error:
        outcome = str(error)
    assert outcome == "True" or outcome.startswith("s.yaml:")
