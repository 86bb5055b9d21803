"""A study in a database: what one machine began another continues, and only one may write."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import peftsearch
from peftsearch.errors import UsageError
from peftsearch.records.examples import Examples, write_examples
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyInfo
from peftsearch.records.storage_name import VARIABLE
from peftsearch.study.read_study import read_study
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.copies import (
    fetch_adapter,
    local_folder,
    refuse_taken,
    register_in_database,
    update_folder,
)
from peftsearch.study.storage.database.heartbeat import HeartbeatTiming
from peftsearch.study.study import Study
from support import standin
from support.buckets import s3_server
from support.postgres import PostgresServer
from support.standin import finish, metric_of, rung_value, take, train_for_nothing

pytestmark = pytest.mark.internals

TIMING = HeartbeatTiming(interval_s=0.05, missed=2)


@pytest.fixture
def address(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> StorageAddress:
    whole = postgres.new_database()
    monkeypatch.setenv(VARIABLE, whole)
    return StorageAddress.parse(whole)


@pytest.fixture
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, unless a test asks for a bucket."""
    if getattr(request, "param", "folder") == "bucket":
        return str(request.getfixturevalue("bucket"))
    return str(tmp_path / "artifacts")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One of S3's protocol."""
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield "s3://bucket/studies"


@pytest.fixture
def info(address: StorageAddress, artifacts: str, tiny_bert: Path) -> StudyInfo:
    places = {"storage": address.redacted, "artifacts": artifacts}
    return standin.info(tiny_bert).model_copy(update=places)


@pytest.fixture
def home(info: StudyInfo, tmp_path: Path) -> StudyFolder:
    folder = StudyFolder.create(info, standin.SPACE, {}, tmp_path / "home", "")
    register_in_database(folder)
    return folder


Machine = Callable[[int], Study]


@pytest.fixture
def machine(
    home: StudyFolder, info: StudyInfo, address: StorageAddress, tmp_path: Path
) -> Iterator[Machine]:
    """Opens the study as worker `n` of a machine of its own."""
    opened: list[Study] = []

    def on(number: int) -> Study:
        folder = local_folder(info.name, address, tmp_path / f"machine-{number}")
        opened.append(standin.open_study(folder, number, TIMING))
        return opened[-1]

    yield on
    for study in opened:
        study.leave()
        study.close()


def test_a_worker_needs_the_name_and_the_storage(machine: Machine, home: StudyFolder) -> None:
    study = machine(1)
    assert study.folder.read_info() == home.read_info()
    assert study.folder.space_path.read_bytes() == home.space_path.read_bytes()


def test_results_of_all_machines_come_home(machine: Machine, home: StudyFolder) -> None:
    one, two = machine(1), machine(2)
    for study in (one, two, one):
        train_for_nothing(study, take(study))
    running = take(two)
    update_folder(home, pytest.fail)
    record = home.read()
    assert [r.number for r in record.results] == [0, 1, 2]
    assert record.running == 1
    for result in record.results:
        source = (two if result.number == 1 else one).folder.trial(result.number)
        own = home.trial(result.number)
        assert result == source.read_result()
        assert own.read_curve() == source.read_curve() != ()
        assert own.read_configuration() == source.read_configuration()
    assert home.trial(running.number).read_configuration() == running.configuration.to_json()


def test_trials_run_whose_workers_are_alive_on_any_machine_and_others_wait(
    machine: Machine, home: StudyFolder
) -> None:
    alive, dead = machine(1), machine(2)
    alive.join()
    held, given_back = take(alive), take(alive)
    lost = take(dead)  # it never joined
    alive.requeue(given_back.number)
    update_folder(home, pytest.fail)
    assert home.unfinished() == [held.number, given_back.number, lost.number]
    record = read_study(home)
    assert (record.running, record.waiting) == (1, 2)


@pytest.mark.parametrize("artifacts", ["folder", "bucket"], indirect=True)
def test_a_dead_workers_trial_goes_on_elsewhere_from_its_checkpoint(machine: Machine) -> None:
    dead, other = machine(1), machine(2)
    cut = take(dead)  # a worker that never joined is as good as dead
    dead.record_rung(cut.number, rung_value(0, metric_of(cut)))
    dead.folder.trial(cut.number).checkpoint_path.write_bytes(b"at rung 0")
    dead.publish_checkpoint(cut.number)
    assert other.recover() == []
    again = take(other)
    assert (again.number, again.configuration, again.resumed) == (
        cut.number,
        cut.configuration,
        True,
    )
    here = other.folder.trial(cut.number)
    assert here.checkpoint_path.read_bytes() == b"at rung 0"
    assert here.read_curve() == dead.folder.trial(cut.number).read_curve()


def test_who_was_taken_for_dead_is_not_heard_any_more(machine: Machine, home: StudyFolder) -> None:
    late, other = machine(1), machine(2)
    cut = take(late)
    assert other.recover(late.name) == []
    again = take(other)
    assert again.number == cut.number
    assert not late.record_rung(cut.number, rung_value(0, 0.1))
    assert not late.owns(cut.number)
    late.requeue(cut.number)
    assert late.tell(finish(cut, late.shapes, "stopped")) == []
    assert [r.state for r in other.tell(finish(again, other.shapes))] == ["full"]
    update_folder(home, pytest.fail)
    assert [r.state for r in home.read().results] == ["full"]


def test_a_living_workers_trial_is_left_alone_and_a_silent_ones_is_not(machine: Machine) -> None:
    worker, other = machine(1), machine(2)
    worker.join()
    trial = take(worker)
    for _ in range(6):
        time.sleep(TIMING.interval_s)
        other.recover()
        assert not other.has_requeued()
    worker.heartbeat._ended.set()  # type: ignore[attr-defined]  # suspended: it holds, and says nothing
    deadline = time.monotonic() + 120
    while not other.has_requeued():
        assert time.monotonic() < deadline
        time.sleep(TIMING.interval_s)
        other.recover()
    assert take(other).number == trial.number


def test_a_trial_cut_off_again_and_again_without_progress_is_recorded_as_failed(
    machine: Machine, home: StudyFolder
) -> None:
    dead, other = machine(1), machine(2)
    cut = take(dead)
    for _ in range(2):
        assert other.recover() == []
        assert take(dead).number == cut.number
    (given_up,) = other.recover()
    assert (given_up.state, given_up.cause) == ("failed", "cut_off")
    update_folder(home, pytest.fail)
    assert home.read().results == (given_up,)


def test_who_wakes_after_its_trial_was_given_up_is_not_heard_either(
    machine: Machine, home: StudyFolder
) -> None:
    late, other = machine(1), machine(2)
    cut = take(late)
    for _ in range(2):
        assert other.recover() == []
        assert take(late).number == cut.number
    (given_up,) = other.recover()
    trial = late.folder.trial(cut.number)
    for path in (trial.checkpoint_path, trial.adapter_path):
        path.write_bytes(b"tensors")
    assert not late.record_rung(cut.number, rung_value(0, 0.1))
    assert not late.owns(cut.number)
    late.publish_checkpoint(cut.number)
    late.requeue(cut.number)
    assert late.tell(finish(cut, late.shapes)) == []
    update_folder(home, pytest.fail)
    assert home.read().results == (given_up,)


def test_what_an_outage_cut_off_after_it_was_told_is_told_to_the_end(machine: Machine) -> None:
    study = machine(1)
    trial = take(study)
    result = finish(trial, study.shapes)
    assert study.tell(result) == [result]
    assert study.tell(result) == [result]  # as `retried` does
    assert study.tell(result.model_copy(update={"metric": 0.0})) == []


def test_a_result_that_was_stored_and_not_told_is_told_by_another(machine: Machine) -> None:
    dead, other = machine(1), machine(2)
    cut = take(dead)
    dead.store.write_result(finish(cut, dead.shapes))
    assert other.recover() == []
    assert other._trials()[cut.number].values[0] == metric_of(cut)


def test_only_one_worker_decides_at_a_time(machine: Machine) -> None:
    one, two = machine(1), machine(2)
    order = []

    def wait_for_it() -> None:
        with two.lock:
            order.append("two")

    with one.lock:
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        waiting.join(0.3)
        order.append("one")
    waiting.join(30)
    assert order == ["one", "two"]


def test_what_was_tuned_elsewhere_is_fetched_for_an_export(
    machine: Machine, home: StudyFolder
) -> None:
    study = machine(1)
    trial = take(study)
    study.folder.trial(trial.number).adapter_path.write_bytes(b"tuned")
    study.tell(finish(trial, study.shapes))
    update_folder(home, pytest.fail)
    fetch_adapter(home, trial.number)
    assert home.trial(trial.number).adapter_path.read_bytes() == b"tuned"


def test_examples_evaluated_elsewhere_are_fetched_when_they_are_read(
    machine: Machine, home: StudyFolder
) -> None:
    study = machine(1)
    first, second = take(study), take(study)
    kept = Examples("mse", {"score": np.array([metric_of(first)])})
    write_examples(study.folder.trial(first.number).examples_path, kept)
    for trial in (first, second):
        study.tell(finish(trial, study.shapes))
    assert not home.trial(first.number).examples_path.exists()
    there = peftsearch.open_study(home.name, home.root.parent)
    assert there.examples(first.number)["score"].tolist() == [metric_of(first)]
    with pytest.raises(UsageError, match=r"is missing: .* \(--artifacts\)"):
        there.examples(second.number)


def test_an_outage_in_the_middle_of_asking_and_telling_loses_nothing(
    machine: Machine, postgres: PostgresServer
) -> None:
    study = machine(1)
    train_for_nothing(study, take(study))
    postgres.kill()
    postgres.start()
    trial = take(study)
    postgres.kill()
    postgres.start()
    train_for_nothing(study, trial)
    states = [t.state.name for t in study._trials()]
    assert states.count("COMPLETE") == 2
    assert not [s for s in states if s == "RUNNING"]


def test_a_database_that_cannot_be_reached_is_said_and_the_folder_shown(
    home: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setenv(VARIABLE, "postgresql://owner:s3cret@127.0.0.1:1/studies")
    monkeypatch.setattr("peftsearch.study.storage.database.copies.READ_LIMIT_S", 0.1)
    update_folder(home, said.append)
    assert len(said) == 1
    assert "127.0.0.1:1/studies" in said[0]
    assert "s3cret" not in said[0]


def test_a_name_that_the_database_has_is_refused(
    home: StudyFolder, info: StudyInfo, address: StorageAddress, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="has a study 'study' already"):
        refuse_taken(info.name, address)
    refuse_taken("another", address)
    own = info.model_copy(update={"id": "f" * 32})
    StudyFolder.create(own, standin.SPACE, {}, tmp_path / "else", "")
    with pytest.raises(UsageError, match="holds a different study"):
        local_folder(info.name, address, tmp_path / "else")


def test_a_study_that_its_database_has_lost_is_not_searched_anew(
    machine: Machine, home: StudyFolder, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = machine(1)
    train_for_nothing(study, take(study))
    update_folder(home, pytest.fail)
    monkeypatch.setenv(VARIABLE, postgres.new_database())
    with pytest.raises(UsageError, match="has no study 'study'"):
        register_in_database(home)


def test_workers_that_join_on_one_machine_in_the_same_moment_share_its_folder(
    home: StudyFolder, address: StorageAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = StudyFolder.create

    def late(*arguments: Any) -> StudyFolder:
        create(*arguments)  # by the other one
        return create(*arguments)

    monkeypatch.setattr(StudyFolder, "create", late)
    folder = local_folder(home.name, address, tmp_path / "machine")
    assert folder.root == tmp_path / "machine" / home.name
    assert folder.read_info() == home.read_info()
