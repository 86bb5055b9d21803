"""Local workers: heard, replaced when they die, stopped."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from peftsearch.search import launch
from peftsearch.search.events import Event, TrialBegan, WorkerStopped
from peftsearch.search.launch import LocalWorkers
from peftsearch.search.limits import Limits, Means
from support.bodies import always_dies, chatter_and_one_death


@pytest.mark.slow
def test_a_killed_worker_is_heard_to_the_end_and_replaced_while_others_chatter(
    tmp_path: Path,
) -> None:
    local = LocalWorkers(str(tmp_path), 2, Limits(), Means(), chatter_and_one_death)
    events: list[Event] = []
    deaths: list[tuple[int, int]] = []
    deadline = time.monotonic() + 60
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
    local = LocalWorkers(str(tmp_path), 1, Limits(), Means(), always_dies)
    events = [event for event in local.run(deaths.append) if event is not None]
    assert deaths == [0, 0]
    assert events == [WorkerStopped(0, "worker 0 died (exit code 3)", 1)] * 2
