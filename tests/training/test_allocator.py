"""Freed memory stays with the process where the C library can be told so; nothing else breaks."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from peftsearch.training import allocator

FAULTS = """
import resource, torch
from peftsearch.training.allocator import keep_freed_memory
kept = keep_freed_memory() if {asked} else None
torch.set_num_threads(1)
def tensors():
    return [torch.zeros(2_000_000) for _ in range(8)]
tensors()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    tensors()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(asked: bool) -> tuple[str, int]:
    """What the setting says, and page faults of 80 tensors of 8 MB made and freed again."""
    script = FAULTS.format(asked=asked)
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own.pop("GLIBC_TUNABLES", None)
    run = subprocess.run(
        [sys.executable, "-c", script], env=own, capture_output=True, text=True, check=True
    )
    said, count = run.stdout.split()
    return said, int(count)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_tensors_are_mapped_once() -> None:
    said, kept = faults(True)
    _, plain = faults(False)
    assert said == "True"
    assert kept < plain / 2


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
