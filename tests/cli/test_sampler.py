"""`--sampler`, `--no-stopping`, `--landmarks`: recorded, followed, shown, the same when resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftsearch.cli.main import run
from peftsearch.records.folder import StudyFolder
from support.worker_here import search_in_this_process

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 6, rungs: [0.5, 1], rung_examples: 10}
places: {attn: {at: [query+value, heads]}}
choices: {attn: {form: [linear, relu], composition: [add, {scaled: {s: [2, 4]}}]}}
train: {batch_size: 16, lr: {log: [1e-4, 1e-2]}}
seed_with: [head-only-mean]
"""
TABLE = "--sampler random --no-stopping --landmarks none --study table"


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_sentiment_csv: Path
) -> Path:
    """A folder with a finished study `table` of two trials."""
    home = tmp_path_factory.mktemp("home")
    (home / "space.yaml").write_text(SPACE)
    (home / "data.csv").write_bytes(tiny_sentiment_csv.read_bytes())
    (home / "m").symlink_to(tiny_bert)
    with pytest.MonkeyPatch.context() as patch:
        search_in_this_process(patch)
        patch.chdir(home)
        words = f"search space.yaml --model m --train data.csv {TABLE} --trials 2"
        assert run(words.split()) == 0
    return home


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    search_in_this_process(monkeypatch)


def document(capsys: pytest.CaptureFixture[str], command: str) -> dict[str, Any]:
    assert run([*command.split(), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_a_study_records_its_sampler_and_follows_it_when_resumed(home: Path) -> None:
    assert run("search --study table --resume --trials 4".split()) == 0
    folder = StudyFolder.open("table")
    info = folder.read_info()
    assert (info.sampler, info.stopping, info.landmarks) == ("random", False, "none")
    results = folder.read().results
    assert {r.state for r in results if r.configuration is not None} == {"full"}
    for result in results:
        assert [value.fraction for value in result.curve] == [0.5, 1.0]
    assert len(results) == 4


def test_status_and_report_name_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "status table")
    assert (found["sampler"], found["stopping"], found["landmarks"]) == ("random", False, "none")
    assert run(["status", "table"]) == 0
    assert "random, no trial is stopped" in capsys.readouterr().out
    page = Path("studies/table/report.html").read_text()
    assert "sampler\nrandom, no trial stopped early; landmarks none;" in page


def origins(capsys: pytest.CaptureFixture[str], words: str) -> list[str]:
    """Where the configurations of a dry run come from, without the samples."""
    found = document(capsys, f"search space.yaml --model m --dry-run {words}")
    return [one["from"] for one in found["examples"] if one["from"] != "sample"]


def test_a_dry_run_lists_the_landmarks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *lora, last = origins(capsys, "")  # the default: the space contains LoRA
    assert (len(lora), last) == (5, "head-only-mean")
    assert all(label.startswith("lora at ") for label in lora)
    assert origins(capsys, "--landmarks lora") == [*lora, last]
    assert origins(capsys, "--landmarks all") == ["head-only-mean"]
    assert origins(capsys, "--landmarks none") == []


@pytest.mark.slow
def test_a_new_study_records_the_default_of_its_space_and_begins_with_lora(home: Path) -> None:
    assert run("search space.yaml --model m --train data.csv --study usual --trials 1".split()) == 0
    folder = StudyFolder.open("usual")
    assert folder.read_info().landmarks == "lora"
    (result,) = folder.read().results
    assert (result.method, result.origin, result.state) == ("lora", "seed", "full")
