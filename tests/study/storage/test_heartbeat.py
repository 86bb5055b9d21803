"""Who is alive: on one machine by file locks, on many by counts, never by the time of day."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path

import optuna
import pytest
from optuna.study import StudyDirection

from peftsearch.study.storage import heartbeat as heartbeat
from peftsearch.study.storage.heartbeat import CountingHeartbeat, LockHeartbeat, Pulse


def test_a_worker_is_alive_from_joining_to_leaving(tmp_path: Path) -> None:
    worker, other = LockHeartbeat(tmp_path / "workers"), LockHeartbeat(tmp_path / "workers")
    assert not other.is_alive("a.0")
    worker.join("a.0")
    assert worker.is_alive("a.0")
    assert other.is_alive("a.0")
    worker.leave()
    assert not other.is_alive("a.0")


def test_a_killed_worker_is_dead_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if not process:
        LockHeartbeat(tmp_path / "workers").join("a.0")
        os.write(writing, b"joined")
        time.sleep(60)
        os._exit(1)
    assert os.read(reading, 6) == b"joined"
    watcher = LockHeartbeat(tmp_path / "workers")
    assert watcher.is_alive("a.0")
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert not watcher.is_alive("a.0")
    assert list((tmp_path / "workers").iterdir()) == []


def test_who_joins_takes_away_what_the_dead_have_left_and_nothing_of_the_living(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "workers"
    living, joining = LockHeartbeat(folder), LockHeartbeat(folder)
    living.join("a.0")
    (folder / "dead.0").touch()
    joining.join("b.0")
    assert sorted(path.name for path in folder.iterdir()) == ["a.0", "b.0"]
    assert joining.is_alive("a.0")


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heartbeat.time, "monotonic", clock.monotonic)
    return clock


def counted(storage: optuna.storages.BaseStorage, study_id: int) -> CountingHeartbeat:
    return CountingHeartbeat(storage, study_id, Pulse(every_s=10.0, missed=3))


def test_a_count_that_stands_still_is_a_death_and_one_that_moves_again_a_life(
    clock: Clock,
) -> None:
    storage = optuna.storages.InMemoryStorage()
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE])
    watcher = counted(storage, study_id)
    storage.set_study_user_attr(study_id, "alive:a.0", 1)
    seen = []
    for second in range(0, 60, 5):
        clock.now = 1000.0 + second
        if second == 10:
            storage.set_study_user_attr(study_id, "alive:a.0", 2)
        seen.append(watcher.is_alive("a.0"))
    assert seen == [True] * 8 + [False] * 4  # seen at 10 s, missed at 20, 30 and 40 s
    storage.set_study_user_attr(study_id, "alive:a.0", 3)
    clock.now += 10
    assert watcher.is_alive("a.0")


def test_the_time_of_an_outage_counts_as_one_look(clock: Clock) -> None:
    storage = optuna.storages.InMemoryStorage()
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE])
    watcher = counted(storage, study_id)
    storage.set_study_user_attr(study_id, "alive:a.0", 1)
    assert watcher.is_alive("a.0")
    clock.now += 3600  # nobody could count, and nobody could look
    assert watcher.is_alive("a.0")


def test_a_worker_counts_until_it_leaves() -> None:
    storage = optuna.storages.InMemoryStorage()
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE])
    worker = CountingHeartbeat(storage, study_id, Pulse(every_s=0.01, missed=3))
    worker.join("a.0")
    deadline = time.monotonic() + 120
    while storage.get_study_user_attrs(study_id)["alive:a.0"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker.leave()
    assert not counted(storage, study_id).is_alive("a.0")


def test_an_error_does_not_stop_the_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = optuna.storages.InMemoryStorage()
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE])
    worker = CountingHeartbeat(storage, study_id, Pulse(every_s=0.01, missed=3))
    worker.join("a.0")
    failed, write = [], storage.set_study_user_attr

    def fails_twice(study: int, key: str, count: object) -> None:
        if len(failed) < 2:
            failed.append(count)
            raise RuntimeError("nobody thought of this one")
        write(study, key, count)

    monkeypatch.setattr(storage, "set_study_user_attr", fails_twice)
    deadline = time.monotonic() + 120
    while storage.get_study_user_attrs(study_id)["alive:a.0"] < 6:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(failed) == 2
    worker.leave()
