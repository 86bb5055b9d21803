"""`peftsearch ls`: the design space as its registries have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftsearch.backbone.families import FAMILIES
from peftsearch.backbone.loading.load import load_shapes
from peftsearch.cli.main import run
from peftsearch.design.composition import COMPOSITIONS
from peftsearch.design.form import FORMS
from peftsearch.design.insertion import INSERTIONS
from peftsearch.design.methods import METHODS
from peftsearch.design.place import PLACES
from support.exports import save_tiny


def document(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run(["ls", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["schema"] == f"peftsearch.ls.{words[0]}/1"
    return found


@pytest.fixture(scope="module")
def tiny_deberta(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("deberta-v2", tmp_path_factory.mktemp("models") / "deberta", tiny_bert)


@pytest.mark.parametrize(
    ("what", "key", "registry"),
    [
        ("methods", "method", METHODS),
        ("forms", "form", FORMS),
        ("places", "place", PLACES),
        ("insertions", "insertion", INSERTIONS),
        ("compositions", "composition", COMPOSITIONS),
        ("families", "family", [family.name for family in FAMILIES]),
    ],
)
def test_a_registry_is_listed_whole_in_its_order_and_every_row_says_something(
    what: str, key: str, registry: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = document(capsys, what)[what]
    assert [row[key] for row in rows] == list(registry)
    assert all(row.get("about", "-") for row in rows)
    assert run(["ls", what]) == 0
    assert all(row[key] in capsys.readouterr().out for row in rows[:1])


def test_a_methods_four_dimensions_and_width_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["method"]: row for row in document(capsys, "methods")["methods"]}
    prefix, relu = rows["mam"]["modifications"]
    assert prefix == {
        "form": "prefix",
        "place": "attn.heads",
        "insertion": "parallel",
        "composition": "gated",
        "width": "l=16",
    }
    assert (relu["form"], relu["place"], relu["composition"], relu["width"]) == (
        *("relu", "ffn.out", "scaled s=2"),
        "r=16",
    )
    assert rows["prefix-mlp"]["modifications"][0]["form"] == "prefix mlp=800"
    assert rows["lora-ffn"]["modifications"][0]["insertion"] == "parallel reads=projection_input"
    assert rows["lora-plus"]["up_lr_ratio"] == 16
    assert rows["head-only-mean"]["modifications"] == []
    assert "tuned" not in rows["mam"]


def test_a_model_gives_every_method_exact_counts(
    tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {
        row["method"]: row
        for row in document(capsys, "methods", "--model", str(tiny_bert))["methods"]
    }
    layers, d, d_ff = 2, 32, 64
    body = load_shapes(str(tiny_bert)).body_parameters
    expected = {
        "head-only-mean": 0,
        "full": body,
        "lora": layers * 2 * 8 * (d + d),
        "prefix": layers * 2 * 16 * d,
        "parallel-adapter-ffn": layers * 2 * 64 * d,
        "ia3": layers * (2 * d + d_ff),
        "ln-tuning": 2 * d + layers * 4 * d,
    }
    for name, tuned in expected.items():
        assert rows[name]["tuned"] == tuned
        assert rows[name]["tuned %"] == pytest.approx(100 * tuned / body)
        assert rows[name]["reason"] is None
    assert rows["lora-ffn"]["modifications"][0]["place"] == "ffn.hidden+out"  # as it is there


def test_what_is_trained_in_the_place_of_what_is_stored_is_counted_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An MLP of 800 units for 6 layers of keys and values, from an embedding of 16 × 384."""
    assert run(["ls", "methods", "--model", "config:minilm-l6"]) == 0
    outputs = 6 * 2 * 384
    trained = 16 * 384 + 384 * 800 + 800 + 800 * outputs + outputs
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("prefix-mlp"))
    assert "73,728" in line
    assert f"{trained:,} are trained in their place" in line


def test_what_a_family_cannot_take_is_listed_with_the_reason(
    tiny_deberta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tiny_deberta)
    rows = {r["method"]: r for r in document(capsys, "methods", "--model", model)["methods"]}
    assert rows["prefix"]["tuned"] is None
    assert "takes no further keys and values" in rows["prefix"]["reason"]
    assert rows["lora"]["tuned"] > 0
    assert run(["ls", "methods", "--model", model]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("prefix "))
    assert "–" in line
    assert "takes no further keys and values" in line


def test_one_line_of_the_table_belongs_to_each_modification(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["ls", "methods"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == sum(max(1, len(m.modifications)) for m in METHODS.values())
    at = next(i for i, line in enumerate(lines) if line.startswith("mam "))
    assert lines[at].split() == ["mam", "prefix", "attn.heads", "parallel", "gated", "l=16"]
    assert lines[at + 1].split() == ["relu", "ffn.out", "parallel", "scaled", "s=2", "r=16"]


def test_places_of_a_model_are_counted_and_missing_ones_explained(
    tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {r["place"]: r for r in document(capsys, "places", "--model", str(tiny_bert))["places"]}
    assert (rows["attn.query"]["sites"], rows["attn.query"]["d"]) == (2, "32")
    assert (rows["ffn.hidden"]["sites"], rows["ffn.hidden"]["d"]) == (2, "64")
    assert rows["norm"]["sites"] == 2 * (1 + 2 * 2)
    assert rows["ffn.gate"]["sites"] == 0
    assert "has no place 'ffn.gate'" in rows["ffn.gate"]["reason"]


def test_a_space_of_which_a_model_can_take_nothing_is_no_ok(
    tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "cross.yaml"
    space.write_text(
        "schema: 1\nbudgets: {tuned_pct: {log: [0.1, 5]}, epochs: 1}\n"
        "places: {a: {at: attn.heads@cross}}\nchoices: {a: {form: relu}}\n"
    )
    assert run(["check", str(space), "--model", str(tiny_bert)]) == 2
    out = capsys.readouterr().out
    assert "0 of 1 structure\n" in out
    assert "no configuration of space 'cross' is supported" in out
    words = ["--model", str(tiny_bert), "--train", str(tiny_sentiment_csv), "--label", "label"]
    studies = tmp_path / "studies"
    search = ["search", str(space), *words, "--study", "z", "--studies", str(studies)]
    assert run([*search, "--trials", "1"]) == 2
    assert "BERT supports no configuration of space 'cross'" in capsys.readouterr().err
    assert not (studies / "z").exists()
