"""Passes are timed by the window, and those in which something else happened are none of it."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from peftsearch.training.cohort import pass_clock
from peftsearch.training.cohort.pass_clock import PassClock
from peftsearch.training.cohort.size import CohortSize, Memory
from peftsearch.training.loop import TrainingRun

SETTLING, WINDOW = pass_clock._SETTLING, pass_clock._WINDOW
MEMBERS = [cast(TrainingRun, object()), cast(TrainingRun, object())]


class _Size(CohortSize):
    """Keeps what it is told, and never settles."""

    def __init__(self) -> None:
        super().__init__(64, 2)
        self.told: list[tuple[int, float, Memory | None]] = []

    def measured(self, members: int, pass_s: float, memory: Memory | None) -> None:
        self.told.append((members, pass_s, memory))


class _Clock(PassClock):
    """Every pass takes a second."""

    def __init__(self, size: CohortSize) -> None:
        super().__init__(torch.device("cpu"), size)
        self.now_s = 0.0

    def passes(self, count: int, is_ordinary: bool = True, takes_s: float = 1.0) -> None:
        for _ in range(count):
            self.now_s += takes_s
            self.passed(MEMBERS, is_ordinary)

    def _now(self) -> float:
        return self.now_s


def test_a_window_is_told_once_the_device_has_settled() -> None:
    size = _Size()
    clock = _Clock(size)
    clock.passes(SETTLING, takes_s=9.0)
    clock.passes(WINDOW - 1)
    assert size.told == []
    clock.passes(1)
    assert size.told == [(2, 1.0, None)]


def test_a_pass_in_which_something_was_recorded_begins_the_window_anew() -> None:
    size = _Size()
    clock = _Clock(size)
    clock.passes(SETTLING + WINDOW - 1)
    clock.passes(1, is_ordinary=False, takes_s=100.0)
    clock.passes(SETTLING + WINDOW - 1)
    assert size.told == []
    clock.passes(1)
    assert size.told == [(2, 1.0, None)]


def test_memory_that_ordinary_passes_needed_counts_where_replays_need_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = _Size()
    clock = _Clock(size)
    peaks = {"now": 70}
    monkeypatch.setattr(pass_clock, "memory_of", lambda *_: Memory(10, peaks["now"], 1000))
    clock.passes(1, is_ordinary=False)
    peaks["now"] = 20
    clock.passes(SETTLING + WINDOW)
    assert size.told == [(2, 1.0, Memory(10, 70, 1000))]
