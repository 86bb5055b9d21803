"""A study's folder is created whole, read back exactly, and refuses what it cannot hold."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from peftsearch.disk import atomic
from peftsearch.disk.atomic_folder import atomic_folder
from peftsearch.errors import MissingError, UsageError
from peftsearch.records.folder import StudyFolder, check_study_name, study_names
from peftsearch.records.records import MetricScale, RungValue, StudyInfo, TrialResult
from peftsearch.records.trials_csv import derived_trials_csv
from peftsearch.study.storage.journal import open_journal

GO_ON = "peftsearch search demo --study sst2 --resume"


def info(name: str = "sst2") -> StudyInfo:
    return StudyInfo(
        name=name,
        id="0123",
        seed=7,
        created_at="2026-01-01T00:00:00+00:00",
        space="demo",
        space_hash="ab",
        model="demo:minilm",
        model_fingerprint="cd",
        task={"name": "demo:tweets"},
        task_name="demo:tweets",
        data_fingerprint="ef",
        labels=("négatif", "positif"),
        train_examples=2000,
        eval_examples=1000,
        metric=MetricScale(name="accuracy", worst=0.5, best=1.0),
        budget_lo_pct=0.01,
        budget_hi_pct=10.0,
        body_parameters=22_565_376,
        full_steps=125,
        rungs=(0.25, 1.0),
        max_length=64,
    )


def result(number: int, **changes: Any) -> TrialResult:
    return TrialResult(number=number, state="full", origin="sampled", metric=0.7, **changes)


def rung(index: int, **changes: Any) -> RungValue:
    values = {
        "rung": index,
        "step": 10 * (index + 1),
        "fraction": 0.5,
        "metric": 0.7,
        "loss": 0.6,
        "train_loss": 0.5,
        "examples": 1000,
        "wall_s": 1.5,
        "cpu_s": 1.25,
    }
    return RungValue.model_validate(values | changes)


def create(studies: Path, name: str = "sst2") -> StudyFolder:
    return StudyFolder.create(info(name), "schema: 1\n", {"torch": "2.13"}, studies, GO_ON)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return create(tmp_path / "studies")


# -- names -------------------------------------------------------------------------------------

BAD_NAMES = [
    "", ".", "..", "../x", "a/b", "a\\b", "/x", ".hidden", "-x", "_x", "a b", "a\n", "a\0", "é",
    "x" * 101, "x.", "con", "NUL.txt", "~", "$HOME", "a:b", "*",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused_with_the_rule_and_nothing_is_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="cannot be used: it must be a letter or digit"):
        create(tmp_path / "studies", name)
    with pytest.raises(UsageError, match="cannot be used"):
        StudyFolder.open(name, tmp_path / "studies")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "7", "sst2", "A.b_c-d", "x" * 100, "console", "a..b"])
def test_a_good_name_is_the_folders_name(tmp_path: Path, name: str) -> None:
    assert check_study_name(name) == name
    assert create(tmp_path, name).root == tmp_path / name


def test_studies_stand_in_the_working_folder_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = StudyFolder.create(info(), "", {}, None, GO_ON)
    monkeypatch.chdir("/")
    assert folder.root == tmp_path / "studies" / "sst2"
    assert folder.read_info() == info()


# -- creating and opening ----------------------------------------------------------------------


def test_a_created_study_is_read_back(folder: StudyFolder, tmp_path: Path) -> None:
    opened = StudyFolder.open("sst2", tmp_path / "studies")
    assert opened.read_info() == info()
    assert opened.space_path.read_text() == "schema: 1\n"
    assert opened.read_environment() == {"torch": "2.13"}
    assert opened.read().results == ()
    assert open_journal(opened.journal_path).get_all_studies() == []


def test_a_created_study_leaves_nothing_beside_it(folder: StudyFolder) -> None:
    assert os.listdir(folder.root.parent) == ["sst2"]
    assert sorted(os.listdir(folder.root)) == [
        "env.json",
        "journal.log",
        "space.yaml",
        "study.json",
        "trials",
    ]


def test_an_existing_study_is_an_error_that_quotes_the_command_to_go_on(
    folder: StudyFolder,
) -> None:
    folder.trial(0).write_result(result(0))
    with pytest.raises(UsageError, match=rf"study 'sst2' already exists; continue with: {GO_ON}"):
        create(folder.root.parent)
    assert len(folder.read().results) == 1


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_what_is_no_study_is_not_written_over(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sst2"
    if kind == "file":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists and is not a study"):
        create(tmp_path)
    assert os.listdir(tmp_path) == ["sst2"]


def test_a_study_created_by_another_in_the_same_moment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_rename = os.rename

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", real_rename)
        create(tmp_path)
        real_rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(UsageError, match="just created by another process"):
        create(tmp_path)
    assert os.listdir(tmp_path) == ["sst2"]
    assert StudyFolder.open("sst2", tmp_path).read_info() == info()


@pytest.mark.parametrize("instant", range(9))
def test_a_creation_that_fails_at_any_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instant: int
) -> None:
    real_sync, synced = os.fsync, 0

    def sync(descriptor: int) -> None:
        nonlocal synced
        if synced == instant:
            raise KeyboardInterrupt
        synced += 1
        real_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    try:
        create(tmp_path)
    except KeyboardInterrupt:
        left = os.listdir(tmp_path)
        assert left == [] or (instant == 8 and left == ["sst2"])
    else:
        pytest.fail("the creation syncs fewer than nine times: lower the range")


KILLED_CREATING = """
import os, signal, sys
from pathlib import Path
from peftsearch.disk import atomic
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyInfo
real_sync, left = os.fsync, int(sys.argv[3])
def sync(descriptor):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    real_sync(descriptor)
atomic.os.fsync = sync
info = StudyInfo.model_validate_json(sys.argv[1])
StudyFolder.create(info, "schema: 1", {}, Path(sys.argv[2]), "")
"""


@pytest.mark.slow
@pytest.mark.parametrize("instant", [0, 3, 7])
def test_a_creation_killed_at_an_instant_is_no_study_and_can_be_repeated(
    tmp_path: Path, instant: int
) -> None:
    arguments = [info().model_dump_json(), str(tmp_path), str(instant)]
    killed = subprocess.run([sys.executable, "-c", KILLED_CREATING, *arguments])
    assert killed.returncode == -signal.SIGKILL
    assert study_names(tmp_path) == []
    create(tmp_path)
    assert study_names(tmp_path) == ["sst2"]


def test_a_folder_that_cannot_hold_studies_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "studies").touch()
    with pytest.raises(MissingError, match="the study cannot be created"):
        create(tmp_path / "studies")


def test_an_unknown_study_is_an_error_with_the_nearest_name(folder: StudyFolder) -> None:
    with pytest.raises(UsageError, match=r"no study 'sst3' in .*did you mean 'sst2'\?"):
        StudyFolder.open("sst3", folder.root.parent)


def test_folders_that_are_no_studies_are_not_listed(tmp_path: Path) -> None:
    create(tmp_path, "b")
    create(tmp_path, "a")
    (tmp_path / "empty").mkdir()
    shutil.copytree(tmp_path / "a", tmp_path / ".c.partial-00")
    assert study_names(tmp_path) == ["a", "b"]
    assert study_names(tmp_path / "missing") == []


def test_a_moved_study_opens_where_it_is(folder: StudyFolder, tmp_path: Path) -> None:
    folder.trial(3).write_result(result(3))
    before = folder.read()
    moved = tmp_path / "elsewhere"
    shutil.move(folder.root.parent, moved)
    assert StudyFolder.open("sst2", moved).read() == before


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "object"),
        ('{"name": 3}', r"name: Input should be a valid string"),
    ],
)
def test_a_damaged_study_file_is_named_with_its_key(
    folder: StudyFolder, text: str, problem: str
) -> None:
    folder.study_path.write_text(text)
    with pytest.raises(UsageError, match=rf"study\.json: .*{problem}.*; restore it"):
        folder.read()


@pytest.mark.parametrize("value", [-2.0, 0.0, float("inf"), float("nan")])
@pytest.mark.parametrize("key", ["budget_lo_pct", "budget_hi_pct"])
def test_a_budget_that_has_no_logarithm_is_named(
    folder: StudyFolder, key: str, value: float
) -> None:
    facts = json.loads(folder.study_path.read_text())
    folder.study_path.write_text(json.dumps(facts | {key: value}))
    with pytest.raises(UsageError, match=rf"study\.json: {key}: Input should be"):
        folder.read()


def test_the_search_lock_names_the_study(folder: StudyFolder) -> None:
    refused = []

    def second_search() -> None:
        try:
            folder.search_lock().acquire(timeout_s=0)
        except UsageError as error:
            refused.append(str(error))

    with folder.search_lock():
        thread = threading.Thread(target=second_search)
        thread.start()
        thread.join()
    assert refused[0].startswith(f"study 'sst2' is being searched by process {os.getpid()} on host")


# -- reading trials ----------------------------------------------------------------------------


def test_results_are_read_in_the_order_of_their_numbers(folder: StudyFolder) -> None:
    for number in (100_000, 7, 99_999, 28):
        folder.trial(number).write_result(result(number))
    assert [r.number for r in folder.read().results] == [7, 28, 99_999, 100_000]


def test_trials_without_a_result_count_as_running(folder: StudyFolder) -> None:
    folder.trial(0).write_result(result(0))
    folder.trial(1).write_configuration({"modifications": []})
    folder.trial(2).append_rung(rung(0))
    record = folder.read()
    assert (len(record.results), record.running) == (1, 2)


def test_foreign_files_among_the_trials_are_left_alone(folder: StudyFolder) -> None:
    folder.trial(0).write_result(result(0))
    for name in (".DS_Store", "0", "000000", "x", "²"):
        (folder.trials_path / name).touch()
    (folder.trial(0).root / ".result.json.ab.tmp").write_text("{")
    record = folder.read()
    assert (len(record.results), record.running) == (1, 0)


def test_a_result_written_after_the_first_reading_is_seen(folder: StudyFolder) -> None:
    folder.trial(0).write_configuration({})
    assert folder.read().running == 1
    folder.trial(0).write_result(result(0))
    assert folder.read().results == (result(0),)
    folder.trial(0).write_result(result(0, message="new"))
    assert folder.read().results == (result(0, message="new"),)


@pytest.mark.parametrize("text", ["", '{"number": 28', '{"number": 28, "extra": 1}', "\0\0"])
def test_a_damaged_result_is_named(folder: StudyFolder, text: str) -> None:
    folder.trial(28).write_result(result(28))
    folder.trial(28).result_path.write_text(text)
    with pytest.raises(UsageError, match=r"trials/00028/result\.json: .*move it away"):
        folder.read()


def test_the_result_of_another_trial_is_refused(folder: StudyFolder) -> None:
    folder.trial(28).write_result(result(28))
    shutil.copytree(folder.trial(28).root, folder.trial(29).root)
    with pytest.raises(UsageError, match=r"00029/result\.json: number: it is trial 28's"):
        folder.read()
    with pytest.raises(ValueError, match="trial 28"):
        folder.trial(29).write_result(result(28))


def test_infinite_losses_survive_the_files(folder: StudyFolder) -> None:
    value = rung(0, loss=math.inf, train_loss=math.nan)
    folder.trial(0).append_rung(value)
    folder.trial(0).write_result(result(0, curve=(value,)))
    for read in (*folder.trial(0).read_curve(), *folder.read().results[0].curve):
        assert (read.loss, math.isnan(read.train_loss)) == (math.inf, True)


@pytest.mark.slow
def test_ten_thousand_trials_are_read_in_seconds(folder: StudyFolder) -> None:
    text = json.dumps(result(0, curve=(rung(0), rung(1))).model_dump(mode="json"))
    for number in range(10_000):
        trial = folder.trial(number)
        trial.root.mkdir()
        trial.result_path.write_text(text.replace('"number": 0', f'"number": {number}'))
    began = time.process_time()
    assert len(folder.read().results) == 10_000
    first = time.process_time() - began
    began = time.process_time()
    assert len(folder.read().results) == 10_000
    assert first < 5
    assert time.process_time() - began < first


# -- one trial ---------------------------------------------------------------------------------


def test_a_configuration_is_read_back(folder: StudyFolder) -> None:
    assert folder.trial(28).read_configuration_if_any() is None
    with pytest.raises(UsageError, match=r"00028/configuration\.json: missing"):
        folder.trial(28).read_configuration()
    folder.trial(28).write_configuration({"head": {"pooling": "mean"}})
    assert folder.trial(28).read_configuration() == {"head": {"pooling": "mean"}}


def test_what_a_killed_creation_left_goes_with_the_next_one_of_that_name(tmp_path: Path) -> None:
    partial, others = tmp_path / ".a.partial-00", tmp_path / ".ab.partial-00"
    for left in (partial, others):
        (left / "trials").mkdir(parents=True)
    descriptor = os.open(partial, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # its maker lives
    StudyFolder.create(info("a"), "", {}, tmp_path, GO_ON)
    assert partial.exists()
    os.close(descriptor)
    shutil.rmtree(tmp_path / "a")
    StudyFolder.create(info("a"), "", {}, tmp_path, GO_ON)
    assert sorted(os.listdir(tmp_path)) == [".ab.partial-00", "a"]


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_damaged_configuration_is_named(folder: StudyFolder, text: str) -> None:
    folder.trial(28).write_configuration({})
    folder.trial(28).configuration_path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"00028/configuration\.json: .*restore it"):
        folder.trial(28).read_configuration()


def test_asking_for_a_trial_writes_nothing(folder: StudyFolder) -> None:
    trial = folder.trial(28)
    assert (trial.read_curve(), trial.read_result(), trial.checkpoint_stamp()) == ((), None, None)
    trial.discard_checkpoint()
    trial.keep_rungs_up_to(0)
    assert not trial.root.exists()


def test_a_curve_grows_by_its_rungs(folder: StudyFolder) -> None:
    for index in range(3):
        folder.trial(0).append_rung(rung(index))
        assert folder.trial(0).read_curve() == tuple(rung(i) for i in range(index + 1))


def test_a_rung_cut_off_at_any_byte_is_left_out_and_written_over(folder: StudyFolder) -> None:
    trial = folder.trial(0)
    trial.append_rung(rung(0))
    trial.append_rung(rung(1))
    whole = trial.curve_path.read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole)):
        trial.curve_path.write_bytes(whole[:length])
        assert trial.read_curve() == (rung(0),), length
        trial.append_rung(rung(2))
        assert trial.read_curve() == (rung(0), rung(2)), length


def test_a_rung_evaluated_again_counts_once(folder: StudyFolder) -> None:
    for value in (rung(0), rung(1), rung(1, wall_s=9.0)):
        folder.trial(0).append_rung(value)
    assert folder.trial(0).read_curve() == (rung(0), rung(1, wall_s=9.0))


def test_rungs_beyond_a_step_are_dropped(folder: StudyFolder) -> None:
    for index in range(3):
        folder.trial(0).append_rung(rung(index))
    folder.trial(0).keep_rungs_up_to(rung(1).step)
    assert folder.trial(0).read_curve() == (rung(0), rung(1))
    folder.trial(0).keep_rungs_up_to(0)
    assert folder.trial(0).read_curve() == ()


def test_a_damaged_point_is_named_by_file_and_line(folder: StudyFolder) -> None:
    folder.trial(28).append_rung(rung(0))
    with open(folder.trial(28).curve_path, "a") as file:
        file.write("{}\n")
    with pytest.raises(UsageError, match=r"00028/curve\.jsonl:2: rung: Field required"):
        folder.trial(28).read_curve()


def test_the_checkpoints_stamp_changes_with_it_and_survives_json(folder: StudyFolder) -> None:
    trial = folder.trial(0)
    trial.write_configuration({})
    atomic.write_atomic(trial.checkpoint_path, b"1")
    first = trial.checkpoint_stamp()
    assert json.loads(json.dumps(first)) == first == trial.checkpoint_stamp()
    os.utime(trial.checkpoint_path, ns=(0, 1))
    assert trial.checkpoint_stamp() not in (None, first)
    trial.discard_checkpoint()
    assert trial.checkpoint_stamp() is None


def test_the_log_takes_lines_and_never_fails(folder: StudyFolder) -> None:
    folder.trial(0).log("nan: at step 3 ∥")
    folder.trial(0).log("again")
    lines = folder.trial(0).log_path.read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["nan: at step 3 ∥", "again"]
    folder.trial(1).log_path.mkdir(parents=True)
    folder.trial(1).log("x")


# -- trials.csv --------------------------------------------------------------------------------


def test_the_table_has_one_flat_line_a_trial(folder: StudyFolder) -> None:
    folder.trial(0).write_result(result(0, tuned_pct=0.1 + 0.2, curve=(rung(0),)))
    folder.trial(1).write_result(result(1, message='a "quoted", line\nand another'))
    rows = list(csv.DictReader(io.StringIO(derived_trials_csv(folder.read()))))
    assert [row["number"] for row in rows] == ["0", "1"]
    assert float(rows[0]["tuned_pct"]) == 0.1 + 0.2
    assert rows[0]["cause"] == ""
    assert rows[1]["message"] == 'a "quoted", line\nand another'
    assert not {"configuration", "curve"} & set(rows[0])


@pytest.mark.parametrize("name", ["x; rm -rf ~", "../x", "<script>", ""])
def test_a_name_in_study_json_that_no_study_can_have_is_refused(
    folder: StudyFolder, name: str
) -> None:
    study = json.loads(folder.study_path.read_text()) | {"name": name}
    folder.study_path.write_text(json.dumps(study))
    with pytest.raises(UsageError, match="cannot be used"):
        folder.read_info()


def test_a_folder_called_study_json_makes_no_study(folder: StudyFolder) -> None:
    folder.study_path.unlink()
    folder.study_path.mkdir()
    assert study_names(folder.root.parent) == []


def test_a_maker_that_is_taken_for_dead_before_its_lock_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one comes between its folder and its lock."""
    inner, made = fcntl.flock, []

    def late(descriptor: int, mode: int) -> None:
        partial = next(tmp_path.glob(".mail.partial-*"))
        if not made:
            partial.rmdir()
        made.append(partial)
        inner(descriptor, mode)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_folder(tmp_path / "mail") as partial:
        (partial / "study.json").write_text("{}")
    assert len(set(made)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mail"]
    assert (tmp_path / "mail" / "study.json").exists()
