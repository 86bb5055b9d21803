"""docs/spaces.md: its files are read and sampled, its errors are raised, its commands run, and its
tables say what the schema says.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.backbone.loading.reference_configs import REFERENCES
from peftsearch.cli.main import run
from peftsearch.design.composition import COMPOSITIONS
from peftsearch.design.cost.trial import trial_cost
from peftsearch.design.form import FORMS
from peftsearch.errors import SpaceError
from peftsearch.policy.seeds import seeds_of
from peftsearch.space.decode import decode
from peftsearch.space.file.document import Document
from peftsearch.space.file.schema import (
    INSERTION_NAMES,
    Budgets,
    HeadChoices,
    SlotChoices,
    SlotPlaces,
    SpaceFile,
    TrainChoices,
    Width,
)
from peftsearch.space.file.shipped import shipped_spaces
from peftsearch.space.file.values import Values
from peftsearch.space.layer_masks import DEPTHS, LAYER_MASKS
from peftsearch.space.predicted_time import typical_workload
from peftsearch.space.random_samples import RandomSamples, RandomSuggestions, draw_samples
from peftsearch.space.space import Space
from peftsearch.space.structures.slot_structure import DIMENSIONS
from support.readme import readme_commands
from support.spaces import shipped

PAGE = (Path(__file__).parents[2] / "docs" / "spaces.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
FIRST, KINDS, DEPTH, MANY, NUMBERS = BLOCKS
COMMANDS = readme_commands(PAGE)


def space(text: str) -> Space:
    """A block of the page; one that is a part of a file gets the keys every file has."""
    begin = "schema: 1\nbudgets: {tuned_pct: {log: [0.1, 10]}, epochs: 1}\n"
    return Space(Document("space.yaml", text if text.startswith("schema:") else begin + text))


def section(title: str) -> str:
    (body,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    return str(body)


def rows(text: str) -> list[list[str]]:
    """The cells of every table row that begins with code."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line[1:-1].split(" | ")] for line in lines]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


class Listener(RandomSuggestions):
    """Random suggestions that remember what was asked for."""

    def __init__(self) -> None:
        super().__init__(0)
        self.asked: set[str] = set()

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        self.asked.add(name)
        return super().suggest_categorical(name, choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked.add(name)
        return super().suggest_float(name, low, high, log=log)


# -- the files ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("text", BLOCKS, ids=["first", "kinds", "depth", "many", "numbers"])
def test_a_file_of_the_page_uses_all_that_it_offers_and_can_be_sampled(text: str) -> None:
    loaded, shapes = space(text), load_shapes("config:bart-large")
    assert [slot.unused() for slot in loaded.slots] == [[] for _ in loaded.slots]
    source = RandomSuggestions(1)
    samples = [decode(loaded.on(shapes), source) for _ in range(300)]
    trainable = [s.configuration for s in samples if s.configuration is not None]
    assert len(trainable) >= 290
    limits = loaded.file.budgets.tuned_pct
    assert all(0 < c.tuned_pct(shapes) <= limits.high for c in trainable)


def test_what_the_first_file_offers_is_enqueued_and_the_rest_are_landmarks() -> None:
    seeds = seeds_of(space(FIRST), load_shapes("config:bert-base"))
    known = {seed.label: seed.params is not None for seed in seeds}
    assert known == {"lora": True, "lora at 0.01 %": True, "mam": True, "head-only-mean": False}


def test_masks_are_of_each_stack_and_kinds_restrict() -> None:
    across, decoder = space(KINDS).on(load_shapes("config:bart-large")).slots
    layers = {(s.at, s.layers): m.place.layers for s, m in across.written.items()}
    assert layers["attn.heads@cross", "last"] == (23,)
    assert layers["attn.query+value@enc_self+dec_self", "last"] == (11, 23)
    halves = {s.layers: m.place.layers for s, m in decoder.written.items()}
    assert halves["upper_half"] == tuple(range(18, 24))


def test_every_composition_of_the_last_file_is_drawn_with_each_of_its_numbers() -> None:
    source, shapes, loaded = RandomSuggestions(0), load_shapes("config:bert-base"), space(NUMBERS)
    drawn, ratios = set(), set()
    for _ in range(300):
        configuration = decode(loaded.on(shapes), source).configuration
        assert configuration is not None
        (modification,) = configuration.modifications
        composition = modification.composition
        number = getattr(composition, "alpha", getattr(composition, "s", None))
        drawn.add((composition.name, number))
        ratios.add(configuration.training.up_lr_ratio)
    assert {("scaled", s) for s in ("learned", 2, 4)} <= drawn
    assert {("dora", 1), ("dora", 2), ("rank_stabilised", 8), ("rank_stabilised", 16)} <= drawn
    assert ratios == {1, 4, 16}


def test_numbers_of_a_composition_written_alone_are_those_of_the_page() -> None:
    found = re.findall(r"`\{log: \[([\d.]+), ([\d.]+)\]\}`", section("Compositions with a number"))
    alone = SlotChoices.model_validate(
        {"form": "linear", "composition": ["rank_stabilised", "dora"]}
    )
    bounds = [(v.low, v.high) for v in (alone.scales, alone.alpha)]
    assert bounds == [(float(low), float(high)) for low, high in found]
    assert alone.dora_s.choices == (1.0,)


@pytest.mark.slow
def test_the_counts_of_random_samples_are_those_of_the_page(minilm: object) -> None:
    """Within two: a product of floats may fall on the other side of a whole number elsewhere."""
    shapes = load_shapes("demo:minilm")
    text = space_named("unified").document.text

    def drawn(without: str) -> RandomSamples:
        lines = [line for line in text.splitlines() if not line.startswith(f"{without}:")]
        return draw_samples(Space(Document("unified.yaml", "\n".join(lines))).on(shapes))

    def lowest(samples: RandomSamples) -> list[int]:
        found = samples.configurations
        return [sum(c.frozen_layers(shapes) == 0 for c in found), len(found)]

    def filled(samples: RandomSamples) -> list[int]:
        return [sum(not s.is_empty for s in sample.structure) for sample in samples.samples]

    now = drawn("nothing")
    fewer = [sum(len(c.modifications) == 1 for c in now.configurations), len(now.configurations)]
    load = replace(typical_workload(shipped("unified")), tokens=36, evaluated_tokens=36)
    costs = [trial_cost(one, shapes, load).total for one in now.configurations]
    prompts = [
        any(m.form.name == "prompt" for m in one.modifications) for one in now.configurations
    ]
    expensive = sum(cost for cost, has in zip(costs, prompts, strict=True) if has)
    counts = {
        r"`unified` (\d+) have a prompt, and these take (\d+) %": [
            sum(prompts),
            100 * expensive / sum(costs),
        ],
        r"Of (\d+) random samples\s+of `unified` (\d+) tune": lowest(now)[::-1],
        r"without a depth, (\d+) of (\d+) do": lowest(drawn("depth")),
        r"this key, (\d+) fill four": [sum(n >= 4 for n in filled(drawn("modifications")))],
        r"(\d+) fill one slot": [filled(now).count(1)],
        r"but (\d+) of the (\d+) that": fewer,
    }
    for pattern, expected in counts.items():
        (said,) = re.findall(pattern, PAGE)
        numbers = [int(number) for number in ([said] if isinstance(said, str) else said)]
        assert numbers == pytest.approx(expected, abs=2), pattern


# -- the errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows(section("What is refused")), ids=lambda row: row[1])
def test_a_mistake_of_the_table_is_refused_in_these_words(row: list[str]) -> None:
    old, new, sentence = (cell.strip("`") for cell in row)
    assert FIRST.count(old) == 1
    with pytest.raises(SpaceError) as caught:
        space(FIRST.replace(old, new))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("form: [none, linear, relu, gelu]", "form: [none, prefix]", "no combination of these"),
        ("at: [hidden+out, out]", "at: [attn.heads]", "clashes with slot 'attn'"),
        ("{attn.form: relu, ffn.form: relu}", "{ffn.composition: add}", None),
    ],
)
def test_slots_are_refused_for_what_the_page_names(
    old: str, new: str, sentence: str | None
) -> None:
    assert FIRST.count(old) == 1
    changed = FIRST.replace(old, new)
    if sentence is None:
        rest = "".join(f"  - {{attn.form: {f}}}\n" for f in ("none", "linear", "prefix", "relu"))
        changed = changed.replace("seed_with:", f"{rest}seed_with:")
        sentence = "these rules exclude every structure of the space"
    with pytest.raises(SpaceError, match=sentence):
        space(changed)


def test_a_value_that_no_valid_combination_uses_is_named_by_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(FIRST.replace("{s: [2, 4]}}]", "{s: [2, 4]}}, gated]"))
    assert run(["check", str(path)]) == 0
    assert "offered but never valid: ffn: composition 'gated'\n" in capsys.readouterr().out


# -- the parameters ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_parameters_listed_are_those_a_sampler_is_asked_for() -> None:
    (listed,) = re.findall(r"^```\n(.*?)^```", section("What a sampler sees"), re.M | re.S)
    loaded, shapes, source = space(FIRST), load_shapes("config:bert-base"), Listener()
    for _ in range(1500):
        decode(loaded.on(shapes), source)
    assert set(listed.split()) == source.asked


# -- the tables --------------------------------------------------------------------------------

KEYS = [row for row in rows(PAGE.split("\n## ")[0]) if len(row) == 3]
MODELS: dict[str, type[BaseModel]] = {
    "": SpaceFile,
    "budgets.": Budgets,
    "places.SLOT.": SlotPlaces,
    "choices.SLOT.": SlotChoices,
    "width.": Width,
    "head.": HeadChoices,
    "train.": TrainChoices,
}
NUMBERS_BESIDE = {"choices.SLOT.s", "choices.SLOT.alpha", "choices.SLOT.dora_s"}
"""Read from `composition`."""


def fields() -> dict[str, Any]:
    """Key of a space file → its default, None where it has none."""
    found = {}
    for prefix, model in MODELS.items():
        for name, field in model.model_fields.items():
            key = f"{prefix}{field.alias or name}"
            found[key] = field.get_default(call_default_factory=True)
    groups = {"places", "choices", "budgets", "width", "head", "train"}
    return {key: value for key, value in found.items() if key not in groups | NUMBERS_BESIDE}


def test_the_table_of_keys_is_the_schema() -> None:
    assert sorted(key for row in KEYS for key in quoted(row[0])) == sorted(fields())


@pytest.mark.parametrize("row", [row for row in KEYS if quoted(row[2])], ids=lambda row: row[0])
def test_a_default_of_the_table_is_the_schemas(row: list[str]) -> None:
    keys, defaults = quoted(row[0]), quoted(row[2])
    assert len(keys) == len(defaults)
    for key, text in zip(keys, defaults, strict=True):
        value = fields()[key]
        default = value.to_plain() if isinstance(value, Values) else value
        written = YAML(typ="safe").load(text)
        assert written == (list(default) if isinstance(default, tuple) else default)


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("depth", DEPTHS),
        ("places.SLOT.layers", LAYER_MASKS),
        ("choices.SLOT.form", ("none", *FORMS)),
        ("choices.SLOT.insertion", INSERTION_NAMES),
        ("choices.SLOT.composition", COMPOSITIONS),
        ("forbid", ("SLOT.DIMENSION: value", *DIMENSIONS)),
    ],
)
def test_the_values_of_a_key_are_all_there_are(key: str, known: Any) -> None:
    (row,) = (row for row in KEYS if row[0] == f"`{key}`")
    assert sorted(quoted(row[1])) == sorted(known)


@pytest.mark.parametrize("key", ["init", "reparametrise", "pooling", "pooler"])
def test_the_values_of_a_short_list_are_taken_and_no_others(key: str) -> None:
    (row,) = (row for row in KEYS if quoted(row[0])[0].endswith(f".{key}"))
    values = [value for value in quoted(row[1]) if value != "linear"]
    assert len(values) >= 2
    if key.startswith("pool"):
        HeadChoices.model_validate({key: values})
        with pytest.raises(ValueError, match="unknown"):
            HeadChoices.model_validate({key: "other"})
        return
    SlotChoices.model_validate({"form": "linear", key: values})
    with pytest.raises(ValueError, match="unknown"):
        SlotChoices.model_validate({"form": "linear", key: "other"})


def test_every_shipped_space_is_in_the_table() -> None:
    listed = [row[0].strip("`") for row in rows(section("The spaces that come with the package"))]
    assert sorted(listed) == sorted(shipped_spaces())


# -- the commands ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text)
def test_a_command_of_the_page_prints_what_the_page_says(
    command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *words = command.words
    assert program == "peftsearch"
    if "--families" in words:  # a small space: test_coverage.py counts every one on every family
        words[1] = "lora-only"
    assert run(words) == 0
    printed = capsys.readouterr().out
    said = {"check": "structures", "show": "choices", "search": "sample "}
    assert said[words[0]] in printed
    if words[0] != "search":
        assert f"distinct structures: {space_named(words[1]).count_structures():,}" in printed
    if "--families" in words:
        assert [name for name in REFERENCES if f"\n{name} " not in printed] == []


def space_named(name: str) -> Space:
    return Space(Document.read(shipped_spaces()[name]))


@pytest.mark.slow
def test_nothing_that_can_be_done_ends_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "across.yaml"
    path.write_text(space(KINDS.replace(", attn.query+value@enc_self+dec_self", "")).to_yaml())
    assert run(["check", str(path), "--model", "config:bart-large"]) == 0
    assert run(["check", str(path), "--model", "config:bert-base"]) == 2
    assert "no configuration of space 'across' is supported" in capsys.readouterr().out
