"""Workers of one machine are alive while they hold their file locks."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path

from peftsearch.study.storage.one_machine import LockHeartbeat


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
