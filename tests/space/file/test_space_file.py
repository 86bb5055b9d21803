"""Space files: read strictly, with file and line; written back as an equal space."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.design.form import FORMS, Relu
from peftsearch.errors import SpaceError
from peftsearch.space.decode import decode
from peftsearch.space.file.document import Document, values_in
from peftsearch.space.file.shipped import shipped_spaces
from peftsearch.space.random_samples import RandomSuggestions
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


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_written_out_reads_back_equal(name: str) -> None:
    original = Space(Document.read(shipped_spaces()[name]))
    again = space(original.to_yaml())
    assert again.file == original.file
    assert again.hash == original.hash
    assert again.count_structures() == original.count_structures()


def test_a_form_that_is_registered_later_changes_the_hash_of_spaces_with_it_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Later(Relu):
        name = "later"

    before = space(GOOD).hash
    monkeypatch.setitem(FORMS, "later", Later)
    assert "later" in dict(space(GOOD).file.to_plain()["train"]["lr"])
    assert space(GOOD).hash == before
    used = GOOD.replace("relu", "later")
    assert space(used).hash != before
    assert space(used.replace("1e-4", "2e-4")).hash != space(used).hash


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
        ("relu]", "relu, relu]", r"s.yaml:10: choices.ffn.form: a value appears twice"),
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
        ("epochs: 2", "epochs: .inf", r"s.yaml:2: budgets.epochs: .* 10000"),
        ("epochs: 2", "epochs: 1e300", r"s.yaml:2: budgets.epochs: .* 10000"),
        (
            "{lr: {log: [1e-4,",
            "{lr: {range: [-1,",
            r"s.yaml:11: train.lr: lr of linear -1.0 is not",
        ),
        ("{log: [1e-4, 1e-2]}", ".nan", r"s.yaml:11: train.lr.linear: \[nan\] holds a number"),
        (
            "train: {",
            "train: {batch_size: 1.5, ",
            r"s.yaml:11: train.batch_size: batch_size 1.5 is",
        ),
        ("train: {", "train: {warmup: 2, ", r"s.yaml:11: train.warmup: warmup 2 is not between 0"),
        ("{lr: {log", "{lr, {log", r"s.yaml:11: a list or a mapping stands where a key"),
        ("attn.form: prefix", "attn.at: quary", r"s.yaml:13: forbid.0.attn.at: 'quary' is not am"),
        ("tuned_pct: 1}", "tuned_pct: .inf}", r"s.yaml:14: seed_with.1.tuned_pct: "),
        ("[lora,", '["lo\\nra",', r"s.yaml:14: seed_with.0.method: method 'lo ra' unknown; did"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(old: str, new: str, sentence: str) -> None:
    assert old in GOOD
    with pytest.raises(SpaceError, match=sentence) as caught:
        space(GOOD.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def test_a_budget_below_one_parameter_fits_nothing_and_says_so(minilm: object) -> None:
    tiny = space(GOOD.replace("[0.1, 10]", "[1e-12, 1e-9]"))
    source = RandomSuggestions(0)
    samples = [decode(tiny.on(load_shapes("demo:minilm")), source) for _ in range(20)]
    assert all(s.configuration is None and 0 < s.log_excess < 100 for s in samples)


def test_a_file_that_is_no_utf_8_text_or_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    with pytest.raises(SpaceError, match=r"s.yaml: cannot be read \(No such file"):
        Document.read(path)
    path.write_bytes(GOOD.encode().replace(b"train", b"tr\xe4in"))
    with pytest.raises(SpaceError, match=r"s.yaml:11: not UTF-8 text"):
        Document.read(path)


def test_a_space_without_learning_rates_takes_typical_ones() -> None:
    plain = space(GOOD.replace("train: {lr: {log: [1e-4, 1e-2]}}", ""))
    assert plain.file.train.lr == {}
    assert space(plain.to_yaml()).hash == plain.hash


def test_slots_that_modify_one_representation_alike_are_refused() -> None:
    clash = GOOD.replace("{at: [out]}", "{at: [attn.heads]}").replace(
        "ffn: {form: [none, relu]}", "ffn: {form: [none, linear]}"
    )
    with pytest.raises(SpaceError, match=r"places.ffn: clashes with slot 'attn'"):
        space(clash.replace("prefix, ffn.form: relu", "prefix, ffn.form: linear"))


def test_a_space_that_forbids_everything_is_refused() -> None:
    with pytest.raises(SpaceError, match="these rules exclude every structure of the space"):
        space(
            GOOD.replace(
                "{attn.form: prefix, ffn.form: relu}",
                "{attn.form: linear}\n  - {attn.form: prefix}\n  - {attn.form: none}",
            )
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "just text", "a: [", "- " * 3000, "\x00", "{" * 5000]
)
def test_what_is_no_space_at_all_is_refused(text: str) -> None:
    with pytest.raises(SpaceError, match=r"s.yaml:\d+: "):
        space(text)


def bomb(levels: int) -> str:
    """A list of nine lists of nine lists …, in so many lines."""
    lines = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(["l0: &l0 [x]", *lines]) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        bomb(9),
        bomb(60),
        "l0: &l0 [x]\n" + "".join(f"l{i}: &l{i} [*l{i - 1}]\n" for i in range(1, 3000)),
        "<<: &a {<<: *a}\n",
        "title: " + "[" * 100_000 + "]" * 100_000 + "\n",
        f"title: {'9' * 5000}\n",
    ],
)
def test_a_file_that_stands_for_more_than_memory_holds_is_refused_at_once(more: str) -> None:
    with pytest.raises(SpaceError, match=r"s.yaml:\d+: "):
        space(GOOD + more)


def test_aliases_are_counted_as_what_they_stand_for() -> None:
    tree = Document("s.yaml", "a: &a [1, 2]\nb: {c: *a, d: *a}\n").tree
    assert values_in(tree) == 1 + 3 + (1 + 3 + 3)
    tree["b"]["c"].append(tree)
    assert values_in(tree) is None


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, ".inf", ".nan"])
@pytest.mark.parametrize("line", ["lr: {{log: [1e-4, {}]}}", "lr: {}", "batch_size: [1, {}]"])
def test_a_number_beyond_every_float_is_named_with_its_line(line: str, number: str) -> None:
    with pytest.raises(SpaceError, match=r"s.yaml:11: train"):
        space(GOOD.replace("lr: {log: [1e-4, 1e-2]}", line.format(number)))


@pytest.mark.slow
@settings(max_examples=120, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_a_mutilated_space_is_of_use_or_refused_but_never_crashes(seed: int, minilm: Path) -> None:
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
        loaded = space(text)
    except SpaceError as error:
        loaded, sentence = None, str(error)
    if loaded is None:
        assert re.fullmatch(r"s.yaml:\d+: .+", sentence)
        return
    assert loaded.count_structures() > 0
    assert space(loaded.to_yaml()).hash == loaded.hash
    suggestions, shapes = RandomSuggestions(seed), load_shapes("demo:minilm")
    for _ in range(3):
        sample = decode(loaded.on(shapes), suggestions)
        assert (sample.configuration is None) == (sample.log_excess > 0)
