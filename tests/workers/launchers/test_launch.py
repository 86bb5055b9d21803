"""Local workers: heard, replaced when they die, stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from peftsearch.workers.events import Event, TrialBegan, WorkerReady, WorkerStopped
from peftsearch.workers.launchers import local as launch
from peftsearch.workers.launchers.local import LocalWorkers
from peftsearch.workers.limits import Limits, WorkerSettings
from support.bodies import (
    always_dies,
    chatter_and_one_death,
    loads_and_begins,
    loads_for_ever,
)


@pytest.mark.slow
def test_a_killed_worker_is_heard_to_the_end_and_replaced_while_others_chatter(
    tmp_path: Path,
) -> None:
    local = LocalWorkers(str(tmp_path), 2, Limits(), WorkerSettings(), chatter_and_one_death)
    events: list[Event] = []
    deaths: list[tuple[int, int]] = []
    deadline = time.monotonic() + 300
    for event in local.run(lambda worker: deaths.append((worker, len(events)))):
        if event is not None:
            events.append(event)
        replaced = bool(deaths) and TrialBegan(1, 0, "chatter") in events
        if replaced or time.monotonic() > deadline:
            local.stop()
    assert [worker for worker, _ in deaths] == [1]
    before = events[: deaths[0][1]]
    assert TrialBegan(1, 7, "its last words") in before
    assert TrialBegan(1, 0, "chatter") in events[len(before) :]
    ended = [event for event in events if isinstance(event, WorkerStopped)]
    assert ended[0] == WorkerStopped(1, "worker 1 died (SIGKILL: out of memory?)", 1)
    assert sorted(event.worker for event in ended[1:]) == [0, 1]
    assert {event.error for event in ended[1:]} == {None}


@pytest.mark.slow
def test_a_worker_that_always_dies_is_not_replaced_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_MAX_DEATHS", 2)
    deaths: list[int] = []
    local = LocalWorkers(str(tmp_path), 1, Limits(), WorkerSettings(), always_dies)
    events = [event for event in local.run(deaths.append) if event is not None]
    assert deaths == [0, 0]
    assert events == [WorkerStopped(0, "worker 0 died (exit code 3)", 1)] * 2


@pytest.mark.slow
def test_a_search_begins_for_all_workers_when_the_first_has_loaded(tmp_path: Path) -> None:
    started = time.monotonic()
    local = LocalWorkers(str(tmp_path), 2, Limits(), WorkerSettings(), loads_and_begins)
    said = {e.worker: e.description for e in local.run(pytest.fail) if isinstance(e, TrialBegan)}
    began, ready = zip(*(map(float, said[worker].split()) for worker in (0, 1)), strict=True)
    assert began[0] == began[1]
    assert began[0] == pytest.approx(ready[0], abs=0.2)
    assert started + 0.5 <= began[0] < ready[1]


@pytest.mark.slow
def test_workers_that_load_still_end_at_once_when_told_to_stop_and_hear_no_ctrl_c_themselves(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    local = LocalWorkers(str(tmp_path), 2, Limits(), WorkerSettings(), loads_for_ever)
    events: list[Event] = []
    ready = loads = False
    pressed = told = float("inf")
    for event in local.run(pytest.fail):
        if pressed == float("inf"):
            pressed = time.monotonic()
            for process, _ in local._running.values():  # a terminal sends it to the whole group
                os.kill(int(process.pid or 0), signal.SIGINT)
        if event is not None:
            events.append(event)
            ready |= event == WorkerReady(0)
            loads |= event == TrialBegan(1, 0, "loads")
        if ready and loads and told == float("inf"):
            told = time.monotonic()
            local.stop()
    assert time.monotonic() - told < 10
    assert [event for event in events if isinstance(event, WorkerStopped)] == [WorkerStopped(0)]
    assert capfd.readouterr().err == ""
