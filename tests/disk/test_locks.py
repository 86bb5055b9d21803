"""A lock excludes threads and processes, names its owner, and ends with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from peftsearch.disk.locks import FileLock, Owner
from peftsearch.errors import MissingError, UsageError

HOLD = """
import sys, time
from pathlib import Path
from peftsearch.disk.locks import FileLock
FileLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock at `path`."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "search.lock"


def test_whether_a_lock_is_held_is_seen_without_waiting_and_without_taking_it(
    tmp_path: Path,
) -> None:
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert not other.is_held()
    with lock:
        assert other.is_held()
        assert lock.is_held()
    assert not other.is_held()
    assert lock.try_acquire()
    lock.release()


def test_a_lock_held_by_another_process_is_not_given(path: Path) -> None:
    with held_elsewhere(path):
        assert not FileLock(path).try_acquire()


def test_the_error_names_process_host_and_time(path: Path) -> None:
    with held_elsewhere(path) as child:
        lock = FileLock(path, "study 'x' is being searched")
        with pytest.raises(
            UsageError,
            match=rf"^study 'x' is being searched by process {child.pid} on host "
            rf"{socket.gethostname()} since 20\S+; wait for it or stop it$",
        ):
            lock.acquire(timeout_s=0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_owner_frees_the_lock(path: Path, how: signal.Signals) -> None:
    with held_elsewhere(path) as child:
        child.send_signal(how)
        child.wait()
        lock = FileLock(path)
        assert lock.owner() is None
        lock.acquire(timeout_s=5)
        lock.release()


def test_waiting_ends_when_the_owner_dies(path: Path) -> None:
    with held_elsewhere(path) as child:
        threading.Timer(0.2, child.kill).start()
        lock = FileLock(path)
        lock.acquire(timeout_s=30)
        assert child.wait() == -signal.SIGKILL
        lock.release()


def test_the_owner_stands_in_the_file_as_json(path: Path) -> None:
    with FileLock(path):
        written = json.loads(path.read_text())
    assert (written["pid"], written["host"]) == (os.getpid(), socket.gethostname())


def test_a_longer_record_of_an_earlier_owner_is_gone(path: Path) -> None:
    path.write_text(json.dumps({"pid": 1, "host": "h" * 500, "since": ""}))
    with FileLock(path) as lock:
        assert lock.owner() == Owner(**json.loads(path.read_text()))


def test_a_damaged_record_hides_the_name_not_the_lock(path: Path) -> None:
    with held_elsewhere(path):
        path.write_text("{")
        with pytest.raises(UsageError, match="by another process"):
            FileLock(path).acquire(timeout_s=0)


def test_a_free_lock_has_no_owner(path: Path) -> None:
    assert FileLock(path).owner() is None
    with FileLock(path) as lock:
        assert lock.owner() is not None
    assert lock.owner() is None


@pytest.mark.parametrize("same_object", [True, False])
def test_taking_it_twice_in_a_thread_is_an_error_not_a_deadlock(
    path: Path, same_object: bool
) -> None:
    with FileLock(path) as lock:
        again = lock if same_object else FileLock(path)
        with pytest.raises(RuntimeError, match="already holds"):
            again.acquire()
        assert not again.try_acquire()
    assert again.try_acquire()  # the failed attempts left nothing behind
    again.release()


def test_a_relative_path_is_the_same_lock_after_chdir(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    lock = FileLock(Path(path.name))
    monkeypatch.chdir("/")
    with lock:
        assert not FileLock(path).try_acquire()


@pytest.mark.parametrize("shared", [True, False])
def test_threads_exclude_one_another(path: Path, shared: bool) -> None:
    common = FileLock(path)
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        lock = common if shared else FileLock(path)
        for _ in range(20):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0.0002)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1


def test_a_forked_child_does_not_keep_its_parents_lock(path: Path) -> None:
    lock = FileLock(path)
    lock.acquire()
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        time.sleep(0.05)
        lock.release()
        assert FileLock(path).try_acquire()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_deleted_lock_file_does_not_split_the_lock(path: Path) -> None:
    """Who waited on the deleted file must not believe to hold the one everybody sees now."""
    first, waiting = FileLock(path), FileLock(path)
    first.acquire()
    thread = threading.Thread(target=waiting.acquire)
    thread.start()
    time.sleep(0.1)
    path.unlink()
    first.release()
    thread.join(10)
    assert not FileLock(path).try_acquire()
    waiting.release()


def test_looking_who_holds_it_does_not_fail_others(path: Path) -> None:
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            FileLock(path).owner()

    thread = threading.Thread(target=look)
    with FileLock(path):
        pass
    thread.start()
    try:
        for _ in range(200):
            lock = FileLock(path)
            assert lock.try_acquire()
            lock.release()
    finally:
        done.set()
        thread.join()


def test_the_owner_is_not_written_through_a_link(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "journal.log"
    precious.write_text("x")
    path.symlink_to(precious)
    with pytest.raises(MissingError, match="is a link"):
        FileLock(path).acquire()
    assert precious.read_text() == "x"


def test_a_missing_folder_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="cannot be locked"):
        FileLock(tmp_path / "no" / "x.lock").acquire()
