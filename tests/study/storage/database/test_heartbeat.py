"""Workers of many machines are alive while they count, whatever the time of day."""

from __future__ import annotations

import time

import optuna
import pytest
from optuna.study import StudyDirection

from peftsearch.study.storage.database import heartbeat as heartbeat
from peftsearch.study.storage.database.heartbeat import CountingHeartbeat, HeartbeatTiming


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
    return CountingHeartbeat(storage, study_id, HeartbeatTiming(interval_s=10.0, missed=3))


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
    worker = CountingHeartbeat(storage, study_id, HeartbeatTiming(interval_s=0.01, missed=3))
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
    worker = CountingHeartbeat(storage, study_id, HeartbeatTiming(interval_s=0.01, missed=3))
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
