"""Searches from scripts and notebooks: workers are processes, Ctrl-C is heard."""

from __future__ import annotations

import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import peftsearch
from peftsearch.processes import without_main
from peftsearch.workers.interrupt import interruptible, with_stop_requests

SCRIPT = """
import peftsearch

print("once")
study = peftsearch.search(
    "space.yaml", "tiny-bert", train="reviews.csv", trials=1, study="s", progress=False
)
print(len(study.trials()), "trials")
"""
ENDLESS = """
import signal

import peftsearch

# A shell starts what runs in the background with SIGINT ignored, and so would this be.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    peftsearch.search(
        "space.yaml", "tiny-bert", train="reviews.csv", study="s",
        progress=lambda line: print(line, flush=True),
    )
except peftsearch.Interrupted as error:
    print("Interrupted:", error)
print("signals as before:", signal.getsignal(signal.SIGINT).__name__)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_searches_once(home: Path) -> None:
    """Its workers must not import it, which would search again."""
    (home / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["once", "1 trials"]
    assert done.stderr == ""


@pytest.mark.slow
def test_ctrl_c_saves_and_raises_interrupted(home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "begins" in line and process.poll() is None and "stopping" not in "".join(lines):
            os.kill(process.pid, signal.SIGINT)
            break
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 0
    assert "stopping: " in rest
    assert "Interrupted: interrupted; everything is saved. Continue with: peftsearch." in rest
    assert "signals as before: default_int_handler" in rest
    assert peftsearch.open_study("s").status()["searched_by"] is None


def test_a_spawned_process_is_not_told_of_the_main_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "<stdin>", raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    told = multiprocessing.spawn.get_preparation_data("worker")
    assert "init_main_from_path" in told
    with without_main():
        told = multiprocessing.spawn.get_preparation_data("worker")
    assert not [key for key in told if key.startswith("init_main")]
    assert sys.modules["__main__"] is main


def test_events_end_with_whoever_hears_them() -> None:
    """As when a function given as `progress` raises: workers must not outlive the call."""
    ended = []

    def events() -> Iterator[None]:
        try:
            while True:
                yield None
        finally:
            ended.append(True)

    heard = with_stop_requests(events(), [])
    assert next(heard) is None
    heard.close()
    assert ended == [True]


def test_a_search_in_another_thread_leaves_signals_alone() -> None:
    class Workers:
        def stop(self) -> None: ...

        def kill(self) -> None: ...

    before, found = signal.getsignal(signal.SIGINT), []

    def search() -> None:
        with interruptible(Workers()) as caught:
            found.append((caught, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert found == [([], before)]
