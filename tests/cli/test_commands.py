"""Every command on one small study of a tiny model: what it prints, in text and in JSON."""

from __future__ import annotations

import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

import peftsearch
from peftsearch.cli.main import run
from peftsearch.records.records import COSTS
from support.worker_here import search_in_this_process

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, epochs: 2, rungs: [0.5, 1], rung_examples: 10}
places: {attn: {at: [query+value, heads]}}
choices:
  attn: {form: [linear, relu, prefix], composition: [add, {scaled: {s: [2, 4]}}, gated]}
train: {batch_size: 16}
seed_with: [head-only-mean, lora]
"""


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_sentiment_csv: Path
) -> Path:
    """A folder with a finished study `small`: four trials of a tiny BERT."""
    home = tmp_path_factory.mktemp("home")
    (home / "small.yaml").write_text(SPACE)
    words = [
        "search",
        str(home / "small.yaml"),
        *("--model", str(tiny_bert), "--train", str(tiny_sentiment_csv)),
        *("--text", "text", "--label", "label", "--study", "small", "--trials", "4"),
        *("--studies", str(home / "studies")),
    ]
    with pytest.MonkeyPatch.context() as patch:
        search_in_this_process(patch)
        assert run(words) == 0
    return home


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(list(words)) == 0
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed(capsys, *words, "--json"))
    assert found["schema"].startswith("peftsearch.")
    return found


@pytest.mark.slow
def test_frontier_is_sorted_and_carries_its_reference(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "frontier", "small")
    tuned = [point["tuned_pct"] for point in found["points"]]
    assert tuned == sorted(tuned)
    assert found["hypervolume_reference"]["lo_pct"] == 0.5
    assert 0 <= found["hypervolume"] <= 1
    assert found["counts"]["evaluated"] == 4
    for point in found["points"]:
        assert {key for key in COSTS if point[key] is None} <= {
            "peak_rss_bytes",
            "peak_device_bytes",
        }


def test_frontier_ends_with_the_report_and_the_command_that_exports(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = printed(capsys, "frontier", "small").splitlines()
    assert re.fullmatch(r"served as [a-z].*#\d.*", lines[-3])
    assert lines[-2] == "report: studies/small/report.html"
    assert lines[-1].startswith("export: peftsearch export small --at '#")


def test_status_counts_what_the_trials_say(capsys: pytest.CaptureFixture[str]) -> None:
    counts = document(capsys, "status", "small")["counts"]
    results = [
        json.loads(p.read_text()) for p in Path("studies/small/trials").glob("*/result.json")
    ]
    assert counts["full"] == sum(r["state"] == "full" for r in results)
    assert counts["running"] == 0


def test_a_study_that_exists_is_refused_with_the_command_that_continues_it(
    capsys: pytest.CaptureFixture[str], tiny_bert: Path, tiny_sentiment_csv: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path("studies").rglob("*") if p.is_file()}
    words = ["search", "small.yaml", "--model", str(tiny_bert), "--train", str(tiny_sentiment_csv)]
    assert run([*words, "--study", "small"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in Path("studies").rglob("*") if p.is_file()}


def test_a_changed_space_is_refused_on_resume(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.yaml").write_text(SPACE.replace("20]", "30]"))
    assert run(["search", "other.yaml", "--study", "small", "--resume"]) == 2
    assert "study 'small' was not created with" in capsys.readouterr().err


def test_an_exported_model_predicts_what_its_trial_measured(
    capsys: pytest.CaptureFixture[str], tiny_sentiment_csv: Path
) -> None:
    point = document(capsys, "frontier", "small")["points"][-1]
    printed(capsys, "export", "small", "native", "--at", f"#{point['number']}", "--to", "native")
    from peftsearch.task.sources.load import load_task
    from peftsearch.task.spec import TaskSpec

    info = json.loads(Path("studies/small/study.json").read_text())
    task = load_task(TaskSpec.model_validate(info["task"]))
    predicted = peftsearch.load("native").predict(list(task.validation.texts))
    truth = [task.labels[label] for label in task.validation.targets]
    right = sum(a == b for a, b in zip(predicted, truth, strict=True))
    assert right / len(truth) == point["metric"]


def test_a_recipe_trains_to_the_same_metric(capsys: pytest.CaptureFixture[str]) -> None:
    point = document(capsys, "frontier", "small")["points"][-1]
    printed(capsys, "export", "small", "r.yaml", "--at", f"#{point['number']}", "--to", "recipe")
    trained = document(capsys, "train", "r.yaml", "--to", "again", "--test")
    assert trained["validation_accuracy"] == point["metric"]
    assert 0 <= trained["test_accuracy"] <= 1
    assert printed(capsys, "predict", "again", "a text").strip() in ("negative", "positive")


def test_predict_reads_texts_from_arguments_and_files_alike(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed(capsys, "export", "small", "model")
    Path("two.csv").write_text("text\nfirst one\nsecond one\n")
    by_argument = printed(capsys, "predict", "model", "first one", "second one")
    assert printed(capsys, "predict", "model", "--file", "two.csv", "--text", "text") == by_argument
    found = document(capsys, "predict", "model", "first one")["predictions"]
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1)


@pytest.mark.slow
def test_predictions_stand_beside_their_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed(capsys, "export", "small", "lines")
    alone = [printed(capsys, "predict", "lines", text) for text in ("good day", "", "bad day")]
    Path("three.csv").write_text("text\ngood day\n\nbad day\n")
    Path("three.txt").write_text("good day\n\nbad day\n")
    Path("three.tsv.gz").write_bytes(gzip.compress(b"1\tgood day\n2\t\n3\tbad day\n"))
    Path("semi.csv").write_text("text;id\ngood day;1\n;2\nbad day;3\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("good day\n\nbad day\n"))
    assert printed(capsys, "predict", "lines") == "".join(alone)
    for words in (
        ("three.csv",),
        ("three.txt",),
        ("three.tsv.gz", "--no-header", "--text", "2"),
        ("semi.csv", "--separator", "semicolon"),
    ):
        assert printed(capsys, "predict", "lines", "--file", *words) == "".join(alone)


def test_an_export_without_columns_is_read_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    """Earlier versions did not write how texts were made."""
    printed(capsys, "export", "small", "earlier")
    path = Path("earlier/configuration.json")
    written = json.loads(path.read_text())
    assert written.pop("reading")["text"] == ["text"]
    path.write_text(json.dumps(written))
    Path("two.csv").write_text("sentence,label\nfirst one,x\nsecond one,y\n")
    by_argument = printed(capsys, "predict", "earlier", "first one", "second one")
    assert printed(capsys, "predict", "earlier", "--file", "two.csv") == by_argument


def test_a_trial_is_shown_with_its_curve(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "show", "small#0")
    assert [value["rung"] for value in found["curve"]] == list(range(len(found["curve"])))
    assert found["number"] == 0


def test_methods_are_listed_with_exact_counts_of_a_model(
    capsys: pytest.CaptureFixture[str], tiny_bert: Path
) -> None:
    found = document(capsys, "ls", "methods", "--model", str(tiny_bert))["methods"]
    lora = next(row for row in found if row["method"] == "lora")
    assert lora["tuned"] == 2 * 2 * 8 * (32 + 32)  # layers × places × r (d_in + d_out)


@pytest.mark.slow
def test_spaces_models_tasks_and_studies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    names = [row["space"] for row in document(capsys, "ls", "spaces")["spaces"]]
    assert {"demo", "unified"} <= set(names)
    assert document(capsys, "ls", "models")["models"][0]["model"] == "demo:minilm"
    assert len(document(capsys, "ls", "tasks")["tasks"]) >= 3
    assert document(capsys, "ls", "studies")["studies"][0]["study"] == "small"


def test_check_says_what_a_model_can_do_of_a_space(
    capsys: pytest.CaptureFixture[str], tiny_bert: Path
) -> None:
    found = document(capsys, "check", "small.yaml", "--model", str(tiny_bert))
    assert found["distinct structures"] > 0
    assert "head-only-mean" in found["landmarks outside the space"]
    assert found["seeds"] == ["lora"]


def test_a_dry_run_trains_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tiny_bert: Path
) -> None:
    words = ("search", "small.yaml", "--model", str(tiny_bert), "--study", "dry", "--dry-run")
    found = document(capsys, *words)
    assert found["sampled"] == 500
    assert not Path("studies/dry").exists()


def test_doctor_finds_what_a_search_needs(capsys: pytest.CaptureFixture[str]) -> None:
    checks = document(capsys, "doctor")["checks"]
    assert all(row["ok"] for row in checks if row["needed"])
