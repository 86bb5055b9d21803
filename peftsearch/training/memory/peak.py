"""Peak memory: the most bytes resident in this process, and on its device, while a run lasts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

import torch

__all__ = ["PeakMemory"]

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""Sets the process's high-water mark back to what is resident now (proc(5), since Linux 4.0)."""
_HIGH_WATER = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)


class PeakMemory:
    """The most memory in use between the making of this object and `look`.

    The process has one high-water mark, which is set back as each object is made; those that are
    being kept have looked before. So trials of one process, of a cohort too, each get the peak of
    the whole process while they lasted: model, data and other members included.
    """

    _kept: ClassVar[WeakSet[PeakMemory]] = WeakSet()

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rss_bytes: int | None = None
        """Bytes resident; None where the kernel cannot set its mark back (no Linux, a sandbox)."""
        self.device_bytes: int | None = None
        """Bytes that tensors had allocated on a CUDA device; None for any other."""
        self.look_all()
        self._measures_rss = _reset_rss()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._kept.add(self)

    @classmethod
    def look_all(cls) -> None:
        """Record the peak of every object, before a mark is reset."""
        for peak in list(cls._kept):
            peak.look()

    def look(self) -> None:
        """Record the peak so far."""
        if self._measures_rss:
            self.include(_rss(), None)
        if self.device.type == "cuda":
            self.include(None, torch.cuda.max_memory_allocated(self.device))

    def include(self, rss_bytes: int | None, device_bytes: int | None) -> None:
        """Raise the peaks to those of an earlier part of the run, as far as they are known."""
        self.rss_bytes = _largest(self.rss_bytes, rss_bytes)
        self.device_bytes = _largest(self.device_bytes, device_bytes)

    def end(self) -> None:
        """Record the peak a last time; later use is not counted."""
        if self in self._kept:
            self.look()
            self._kept.discard(self)


def _largest(one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


def _reset_rss() -> bool:
    """Reset the high-water mark; False where that is impossible."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _rss() -> int | None:
    """The high-water mark in bytes."""
    try:
        found = _HIGH_WATER.search(_STATUS.read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if found is None else 1024 * int(found[1])
