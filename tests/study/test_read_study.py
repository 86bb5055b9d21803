"""A trial without an end is running while its worker lives, and waits otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import peftsearch
from peftsearch.cli.main import run
from peftsearch.records.folder import StudyFolder
from peftsearch.study.read_study import read_study
from peftsearch.study.study import Study
from support import standin


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> StudyFolder:
    return standin.create(tiny_bert, tmp_path)


@pytest.fixture
def study(folder: StudyFolder) -> Study:
    study = standin.open_study(folder)
    study.name = study.new_trials.worker = "host-1-abc.0"
    return study


def under_way(folder: StudyFolder) -> tuple[int, int]:
    record = read_study(folder)
    return record.running, record.waiting


def test_what_a_living_worker_trains_runs_and_what_it_gave_back_waits(
    folder: StudyFolder, study: Study
) -> None:
    study.join()
    assert under_way(folder) == (0, 0)
    first, second = standin.take(study), standin.take(study)
    assert under_way(folder) == (2, 0)
    study.requeue(first.number)
    assert under_way(folder) == (1, 1)
    assert standin.take(study).number == first.number
    assert under_way(folder) == (2, 0)
    standin.train_for_nothing(study, second)
    assert under_way(folder) == (1, 0)
    study.leave()
    assert under_way(folder) == (0, 1)


def test_no_trial_of_a_worker_that_was_killed_runs(folder: StudyFolder, study: Study) -> None:
    standin.take(study)  # it never joined: its file holds no lock
    other = standin.open_study(folder, 1)
    other.name = other.new_trials.worker = "host-2-abc.1"
    other.join()
    standin.take(other)
    assert under_way(folder) == (1, 1)
    other.leave()


def test_a_study_is_counted_though_its_journal_is_missing_or_cut(
    folder: StudyFolder, study: Study
) -> None:
    study.join()
    standin.take(study)
    with folder.journal_path.open("ab") as journal:
        journal.write(b'{"op_code":8,"trial_id":0,"user_attr":{"worker":')
    assert under_way(folder) == (1, 0)
    folder.journal_path.unlink()
    assert under_way(folder) == (0, 1)
    study.leave()


def test_a_search_that_was_killed_by_its_user_costs_a_trial_nothing(
    folder: StudyFolder, study: Study
) -> None:
    first = standin.take(study)
    for _ in range(6):  # far more often than it may be cut off by what may be its own fault
        assert study.recover(study.name, counts=False) == []
        again = standin.take(study)
        assert (again.number, again.alone) == (first.number, False)


@pytest.mark.slow
def test_status_report_and_python_tell_waiting_trials_from_running_ones_alike(
    folder: StudyFolder, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    study.join()
    standin.train_for_nothing(study, standin.take(study))
    study.requeue(standin.take(study).number)
    where = [folder.name, "--studies", str(folder.root.parent)]

    assert run(["status", *where, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert (counts["running"], counts["waiting"], counts["full"]) == (0, 1, 1)
    opened = peftsearch.open_study(folder.name, folder.root.parent)
    assert opened.status()["counts"] == counts
    for write in (lambda: run(["report", *where]), opened.report):
        folder.frontier_path.unlink(missing_ok=True)
        write()
        assert json.loads(folder.frontier_path.read_text())["counts"] == counts
    assert run(["frontier", *where, "--json"]) == 0
    study.leave()
