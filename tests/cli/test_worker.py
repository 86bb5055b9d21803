"""`peftsearch worker`: joining a study from another machine, or beside a search on this one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from peftsearch.cli.main import run
from peftsearch.cli.storage import without_storage
from peftsearch.records.folder import StudyFolder
from peftsearch.records.storage_name import VARIABLE
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.workers.limits import Limits, WorkerSettings
from peftsearch.workers.worker import Worker
from support.postgres import PASSWORD, PostgresServer
from support.worker_here import search_in_this_process

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, epochs: 1}
places: {attn: {at: [query+value]}}
choices: {attn: {form: [linear, relu]}}
train: {batch_size: 8, lr: 0.001}
"""
WORDS = (PASSWORD, quote(PASSWORD, safe=""))


@pytest.fixture
def begin(tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path) -> list[str]:
    """A search of `SPACE`, but for its storage and limits."""
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    return [
        *("search", str(space), "--model", str(tiny_bert), "--train", str(tiny_sentiment_csv)),
        *("--study", "s"),
    ]


@pytest.fixture(autouse=True)
def _no_storage() -> Iterator[None]:
    """Commands leave the storage in the environment, for their workers."""
    os.environ.pop(VARIABLE, None)
    yield
    os.environ.pop(VARIABLE, None)


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def texts_under(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


@pytest.mark.slow
def test_two_machines_search_one_study_and_the_password_is_written_nowhere(
    postgres: PostgresServer,
    begin: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = postgres.new_database()
    here, there = ["--studies", str(tmp_path / "here")], ["--studies", str(tmp_path / "there")]
    storage = ["--storage", whole]
    shared = ["--artifacts", str(tmp_path / "artifacts")]
    assert run([*begin, *storage, *shared, *here, "--trials", "2"]) == 0
    assert run(["worker", "s", *storage, *there, "--trials", "4"]) == 0
    again = [*begin, *storage, *here]
    monkeypatch.setattr("sys.argv", ["peftsearch", *again])
    assert run(again) == 2  # it exists: the command that goes on is quoted
    out, err = capfd.readouterr()
    assert run(["status", "s", *here, "--json"]) == 0
    status, more = capfd.readouterr()
    counts = json.loads(status)["counts"]
    assert counts["full"] + counts["stopped"] >= 4
    best = json.loads(status)["frontier_points"]
    assert best >= 1
    ours = StudyFolder.open("s", tmp_path / "here")
    theirs = StudyFolder.open("s", tmp_path / "there")
    mine = {r.number for r in ours.read().results if ours.trial(r.number).adapter_path.exists()}
    other = next(r for r in ours.read().results if r.number not in mine and r.state == "full")
    assert theirs.trial(other.number).adapter_path.exists()
    export = ["export", "s", *here, "--at", f"#{other.number}", "--to", "native"]
    assert run([*export, str(tmp_path / "out")]) == 0
    assert (
        ours.trial(other.number).adapter_path.read_bytes()
        == theirs.trial(other.number).adapter_path.read_bytes()
    )
    assert f"--storage {StorageAddress.parse(whole).redacted}" in err
    everything = out + err + status + more
    assert [word for word in WORDS if word in everything] == []
    for path, content in texts_under(tmp_path):
        assert [word for word in WORDS if word.encode() in content] == [], path


@pytest.mark.slow
def test_a_worker_joins_the_search_of_its_machine_by_name(
    begin: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search_in_this_process(monkeypatch)
    studies = ["--studies", str(tmp_path)]
    assert run([*begin, *studies, "--trials", "1"]) == 0
    # Another study's storage in the environment is no storage of this one.
    monkeypatch.setenv(VARIABLE, "postgresql://owner@127.0.0.1:1/other")
    folder = StudyFolder.open("s", tmp_path)
    with folder.search_lock():  # a search is under way, and its worker trains
        assert run(["worker", "s", *studies, "--trials", "3"]) == 0
    assert sum(r.state in ("full", "stopped") for r in folder.read().results) >= 3


@pytest.mark.slow
def test_a_worker_goes_as_far_as_its_search_and_takes_what_a_dead_one_left(
    begin: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search_in_this_process(monkeypatch)
    studies = ["--studies", str(tmp_path)]
    assert run([*begin, *studies, "--trials", "2"]) == 0
    folder = StudyFolder.open("s", tmp_path)

    def worker(limits: Limits) -> Worker:
        arguments = (str(folder.root), 0, limits, time.monotonic, WorkerSettings())
        return Worker(*arguments, lambda _: None, lambda: False)

    cut = worker(Limits(3)).study.ask()
    assert cut is not None
    second = worker(Limits(3, wait_for_others=True))
    assert second.study.target() == 2
    second.run()
    assert {r.number: r.state for r in folder.read().results}[2] in ("full", "stopped")
    assert folder.read().running == 0


def test_a_study_that_is_nowhere_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["worker", "s", "--studies", str(tmp_path)]) == 2
    assert "no study 's'" in capsys.readouterr().err


def test_artifacts_without_a_database_are_refused(
    begin: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*begin, "--studies", str(tmp_path), "--artifacts", str(tmp_path / "a")]) == 2
    assert "give --storage, too" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_a_quoted_command_line_shows_no_password() -> None:
    address = "postgresql://me:s3cret@db/x"
    for line in (["search", "--storage", address, "-x"], ["search", f"--storage={address}", "-x"]):
        assert "s3cret" not in " ".join(without_storage(line))
        assert "postgresql://me@db/x" in " ".join(without_storage(line))
        assert without_storage(line)[-1] == "-x"
    assert without_storage(["search", "--storage"]) == ["search", "--storage"]
