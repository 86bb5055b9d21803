"""`--sampler` and `--no-stopping`: recorded, followed, shown, and the same when resumed."""

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
choices: {attn: {form: [linear, relu], composition: [add, gated]}}
train: {batch_size: 16}
"""
TABLE = "--sampler random --no-stopping --study table"


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
    assert (info.sampler, info.stopping) == ("random", False)
    results = folder.read().results
    assert {r.state for r in results if r.configuration is not None} == {"full"}
    for result in results:
        assert [value.fraction for value in result.curve] == [0.5, 1.0]
    assert len(results) == 4


def test_status_and_report_name_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "status table")
    assert (found["sampler"], found["stopping"]) == ("random", False)
    assert run(["status", "table"]) == 0
    assert "random, no trial is stopped" in capsys.readouterr().out
    page = Path("studies/table/report.html").read_text()
    assert "sampler\nrandom, no trial stopped early;" in page
