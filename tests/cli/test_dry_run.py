"""`search --dry-run`: what it says of the data is what the files hold, and nothing is written."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from peftsearch.cli.main import run
from support.tiny import copying_rows, sentiment_rows, write_csv

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, epochs: 2, rungs: [0.5, 1], rung_examples: 12}
places: {attn: {at: query+value}}
choices: {attn: {form: linear}}
train: {batch_size: 8, lr: 0.001}
"""


@pytest.fixture
def home(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """120 rows of training data, one without a text and 30 of label x alone; 20 of validation."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "m").symlink_to(tiny_bert)
    rows = [*sentiment_rows(89), {"text": "", "label": "x"}]
    rows += [{"text": f"{row['text']} x", "label": "x"} for row in sentiment_rows(30, 1)]
    write_csv(tmp_path / "data.csv", rows)
    write_csv(tmp_path / "eval.csv", sentiment_rows(20, 2))
    return tmp_path


DRY = "search space.yaml --model m --train data.csv --eval eval.csv --dry-run"


def document(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run([*DRY.split(), "--json", *words]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_it_counts_rows_labels_and_tokens_as_the_file_has_them(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys)
    with (home / "data.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["text"]]
    tokenizer = AutoTokenizer.from_pretrained(home / "m")
    lengths = [len(tokenizer(row["text"])["input_ids"]) for row in rows]
    assert found["schema"] == "peftsearch.dry_run/1"
    data = found["data"]
    assert data["train"] == {"used": 119, "rows": 120}
    assert data["validation"] == {"used": 20, "rows": 20}
    assert data["labels"] == {
        label: sum(row["label"] == label for row in rows) for label in ("negative", "positive", "x")
    }
    assert (data["kind"], data["metric"]) == ("classification", "accuracy")
    assert found["metric"]["worst"] == 0.5  # of the validation data
    tokens = data["tokens"]
    assert (tokens["least"], tokens["longest"]) == (min(lengths), max(lengths))
    assert tokens["median"] in (statistics.median_low(lengths), statistics.median_high(lengths))
    assert tokens["cut"] == sum(length > data["max_length"] for length in lengths)
    assert found["full_steps"] == 2 * 15


@pytest.mark.slow
def test_a_part_of_the_data_is_told_as_a_part(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, "--train-examples", "40", "--eval-examples", "10")
    assert found["data"]["train"] == {"used": 40, "rows": 120}
    assert found["data"]["validation"] == {"used": 10, "rows": 20}
    assert sum(found["data"]["labels"].values()) == 40
    assert run([*DRY.split(), "--train-examples", "40"]) == 0
    assert "training: 40 rows used of 120" in capsys.readouterr().out


@pytest.mark.slow
def test_its_estimate_is_of_the_time_asked_for(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate = document(capsys, "--minutes", "5", "--workers", "1")["estimate"]
    assert estimate["seconds"] == 300
    assert 0 < estimate["stopped_s"] < estimate["full_s"] < 60
    assert estimate["trials_at_least"] <= estimate["trials"] <= estimate["trials_at_most"]
    trials = 300 / estimate["full_s"]  # of two digits
    assert abs(estimate["trials"] - trials) <= 1 + 0.06 * trials
    samples = estimate["samples"]
    assert 0 < samples["median_s"] <= samples["most_s"] <= samples["longest_s"]
    # One form at one place in all layers, as measured: nothing of it costs far more or less.
    measured = statistics.median(estimate["full_s_measured"])
    assert 0.4 < samples["median_s"] / measured < 2.5
    assert samples["longest"].startswith("linear∥attn.query+value r=")
    asked = document(capsys, "--trials", "10")["estimate"]
    assert "trials" not in asked
    assert asked["search_s"] == pytest.approx(10 * asked["full_s"], rel=0.12)


@pytest.mark.slow
def test_it_writes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(home.rglob("*"))
    assert run([*DRY.split(), "--minutes", "1"]) == 0
    out = capsys.readouterr().out
    assert "estimate: about" in out
    assert "random samples, predicted: half take at most" in out
    assert "trials of full length in 1 min after loading" in out
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("--train nothing.csv", 2, "nothing.csv: no such file"),
        ("--label labl", 2, "no column 'labl'"),
        ("--metric pearson", 2, "does not fit classification"),
        ("--model ./nothing", 3, "no model at './nothing'"),
        ("--minutes 1 --hours 1", 2, "not both"),
        ("--beams 2", 2, "--beams applies only to tasks"),
    ],
)
def test_what_a_search_would_refuse_is_refused(
    words: str, code: int, sentence: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*DRY.split(), *words.split()]) == code
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_without_weights_has_no_estimate_and_its_data_are_opened(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, "--model", "config:minilm-l6")
    assert found["estimate"] is None
    assert found["data"]["train"] == {"used": 119, "rows": 120}
    assert run([*DRY.split(), "--model", "config:minilm-l6"]) == 0
    assert "has no weights: text lengths and trial" in capsys.readouterr().err
    assert run([*DRY.split(), "--model", "config:minilm-l6", "--label", "labl"]) == 2


@pytest.mark.slow
def test_without_data_the_space_alone_is_shown(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("search space.yaml --model config:minilm-l6 --dry-run".split()) == 0
    printed = capsys.readouterr()
    assert "no data given" in printed.err
    assert "distinct structures: " in printed.out


@pytest.mark.slow
def test_texts_to_be_written_have_no_labels(
    home: Path, tiny_bart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = copying_rows(60)
    write_csv(home / "copy.csv", rows)
    text, target = list(rows[0])
    words = ["--model", str(tiny_bart), "--train", "copy.csv", "--eval", "copy.csv"]
    columns = ["--text", text, "--label", target, "--kind", "seq2seq", "--metric", "exact_match"]
    found = document(capsys, *words, *columns)
    assert found["data"]["labels"] is None
    assert found["data"]["train"] == {"used": 60, "rows": 60}
    assert found["estimate"]["full_s"] > 0
