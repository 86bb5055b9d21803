"""Peak memory of runs that share a process."""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from peftsearch.training.cohort.pass_clock import PassClock
from peftsearch.training.cohort.size import CohortSize
from peftsearch.training.memory import peak
from peftsearch.training.memory.peak import PeakMemory

CPU = torch.device("cpu")
BYTES = 200 << 20
SLACK = 32 << 20
"""The kernel counts pages of each thread in batches, and the interpreter allocates, too."""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def use_memory() -> None:
    """Mapped and unmapped, past malloc, which may keep what is freed."""
    with mmap.mmap(-1, BYTES) as pages:
        for start in range(0, BYTES, mmap.PAGESIZE):
            pages[start] = 1


def rss(one: PeakMemory) -> int:
    one.look()
    assert one.rss_bytes is not None
    return one.rss_bytes


@on_linux
def test_a_peak_is_that_of_its_own_time() -> None:
    use_memory()
    first = PeakMemory(CPU)
    before = rss(first)
    use_memory()
    assert rss(first) == pytest.approx(before + BYTES, abs=SLACK)
    second = PeakMemory(CPU)
    assert rss(second) < rss(first) - BYTES + SLACK


@on_linux
def test_one_that_is_begun_later_takes_no_peak_from_those_before() -> None:
    first = PeakMemory(CPU)
    before = rss(first)
    use_memory()
    PeakMemory(CPU)  # sets the process's mark back, before the first has looked again
    assert rss(first) == pytest.approx(before + BYTES, abs=SLACK)


@on_linux
def test_after_its_end_nothing_is_counted() -> None:
    ended = PeakMemory(CPU)
    ended.end()
    found = ended.rss_bytes
    use_memory()
    PeakMemory(CPU)
    ended.end()
    assert ended.rss_bytes == found


def test_an_earlier_part_of_the_run_is_included() -> None:
    one = PeakMemory(CPU)
    one.look()
    one.include(1 << 50, 7)
    one.include(None, None)
    one.include(1, 3)
    assert (one.rss_bytes, one.device_bytes) == (1 << 50, 7)


@pytest.mark.parametrize("name", ["_CLEAR_REFS", "_STATUS"])
def test_where_the_kernel_does_not_tell_it_is_not_known(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peak, name, tmp_path / "none" / "such")
    one = PeakMemory(CPU)
    one.end()
    assert one.rss_bytes is None
    assert one.device_bytes is None


@dataclass
class Device:
    """The peak of a CUDA device, as torch counts it."""

    now: int = 100
    peak: int = 100

    def use(self, count: int) -> None:
        self.peak = max(self.peak, self.now + count)

    def reset(self, _: torch.device) -> None:
        self.peak = self.now


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: made.peak)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: made.now)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", made.reset)
    return made


def test_members_of_a_cohort_have_the_devices_peak_while_they_lasted(device: Device) -> None:
    device.use(900)
    first = PeakMemory(torch.device("cuda"))
    device.use(50)
    second = PeakMemory(torch.device("cuda"))
    device.use(20)
    for one in (first, second):
        one.end()
    device.use(500)
    for one in (first, second):
        one.end()
    assert (first.device_bytes, second.device_bytes) == (150, 120)


def test_a_clock_that_measures_passes_takes_no_peak_away(device: Device) -> None:
    member: Any = object()
    peak = PeakMemory(torch.device("cuda"))
    clock = PassClock(torch.device("cuda"), CohortSize())
    device.use(70)
    clock.passed([member])  # other members than before: it begins to measure anew
    assert device.peak == device.now
    peak.end()
    assert peak.device_bytes == 170
