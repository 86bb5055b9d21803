"""Freed memory stays with the process where the C library can be told so; nothing else breaks."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from peftsearch.training.memory import allocator

SCRIPT = """
import ctypes, torch
from peftsearch.training.memory.allocator import keep_freed_memory

class Counts(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Counts
kept = keep_freed_memory() if {asked} else None
before = mallinfo()
tensors = [torch.zeros(2_000_000) for _ in range(8)]
mapped = mallinfo().hblks - before.hblks
del tensors
print(kept, mapped, mallinfo().fordblks - before.fordblks)
"""


def counts(asked: bool) -> tuple[str, int, int]:
    """What the setting says, how many of eight tensors of 8 MB were mapped by themselves, and the
    bytes of them that the process still holds once they are freed.
    """
    script = SCRIPT.format(asked=asked)
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own.pop("GLIBC_TUNABLES", None)
    own["MALLOC_MMAP_THRESHOLD_"] = "131072"  # as it begins: else it rises with what is freed
    run = subprocess.run(
        [sys.executable, "-c", script], env=own, capture_output=True, text=True, check=True
    )
    said, mapped, held = run.stdout.split()
    return said, int(mapped), int(held)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="counts of glibc 2.33")
def test_large_tensors_are_not_mapped_and_stay_when_freed() -> None:
    said, mapped, held = counts(True)
    assert (said, mapped) == ("True", 0)
    assert held >= 8 * 8_000_000
    _, mapped, held = counts(False)
    assert mapped == 8
    assert held < 8_000_000


def test_a_c_library_without_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        def __init__(self, name: object) -> None:
            pass

    monkeypatch.setattr(ctypes, "CDLL", Without)
    assert allocator.keep_freed_memory.__wrapped__() is False


def test_a_setting_that_is_refused_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, name: object) -> None:
            self.mallopt = lambda what, value: 0

    monkeypatch.setattr(ctypes, "CDLL", Refusing)
    assert allocator.keep_freed_memory.__wrapped__() is False


GIVEN_BACK = """
import torch
from peftsearch.training.memory import allocator

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1000

assert allocator.keep_freed_memory()
above = 100_000_000
allocator.trim_above(0)  # what is not malloc's is no matter from here on
before = resident()
def used(tensors):
    made = [torch.ones(2_000_000) for _ in range(tensors)]
    last = torch.ones(10)  # what stands above them on the heap
    del made
    return last
little = used(4)
kept = allocator.trim_above(above), resident() - before
much = used(32)
held = resident() - before
print(*kept, held, allocator.trim_above(above), resident() - before,
      allocator.trim_above(above))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not (hasattr(ctypes.CDLL(None), "mallinfo2") and os.path.exists("/proc/self/status")),
    reason="counts of glibc 2.33 and Linux",
)
def test_much_free_memory_is_given_back_and_little_stays() -> None:
    """32 MB of four tensors stay; 256 MB of 32 are resident until they are given back, once."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own.pop("GLIBC_TUNABLES", None)
    run = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK], env=own, capture_output=True, text=True, check=True
    )
    first, little, held, gave, left, again = run.stdout.split()
    assert (first, gave, again) == ("False", "True", "False")
    assert 25 <= float(little) <= 100
    assert float(held) >= 240
    assert float(left) <= 60


def test_a_c_library_that_cannot_trim_gives_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_of_the_c_library", lambda name: None)
    assert allocator.trim_above(above=0) is False
