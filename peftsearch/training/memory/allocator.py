"""glibc malloc tuning: keep freed memory during a trial, trim it between trials.

By default, malloc returns large freed tensors to the kernel, which maps and zeroes new pages a
moment later: 2,000 to 16,000 page faults in a trial of 384 tweets, mostly none with this. The
setting holds for the whole process and is not undone, so without trimming a worker would keep what
its largest trial needed, and whatever fragmentation adds (docs/performance.md has figures).
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["BETWEEN_TRIALS", "WITHIN_A_TRIAL", "keep_freed_memory", "trim", "trim_above"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of malloc.h."""
_PAD = 1 << 28
"""Bytes requested from the kernel at a time."""
_LARGEST = 2**31 - 1
"""mallopt takes a C int."""
_USUAL_MOST = 2**25
"""Largest threshold that older versions of glibc accept."""

BETWEEN_TRIALS, WITHIN_A_TRIAL = 512 << 20, 2 << 30
"""Free resident bytes above which memory is trimmed. Ordinary trials of a small model leave less,
so that their pages are reused; within a trial, what was just freed is likely to be needed again.
"""


@cache
def keep_freed_memory() -> bool:
    """Have malloc keep freed memory from now on; False without glibc (musl, macOS)."""
    mallopt = _of_the_c_library("mallopt")
    if mallopt is None:
        return False
    mapped = any(mallopt(_MMAP_THRESHOLD, most) == 1 for most in (_LARGEST, _USUAL_MOST))
    others = [mallopt(_TRIM_THRESHOLD, _LARGEST), mallopt(_TOP_PAD, _PAD)]
    return mapped and others == [1, 1]


def trim_above(above: int) -> bool:
    """Trim if more than `above` free bytes are resident; whether it was done. To be called when
    tensors have just been freed.
    """
    if _resident_beside_malloc() - _Rest.others <= above or not trim():
        return False
    _Rest.others = _resident_beside_malloc()
    return True


class _Rest:
    """Resident bytes after the last trim: memory of other allocators (e.g. Python's, for the task's
    texts).
    """

    others: ClassVar[int] = 0


def trim() -> bool:
    """Return all free memory to the kernel; False without glibc (musl, macOS)."""
    malloc_trim = _of_the_c_library("malloc_trim")
    return malloc_trim is not None and malloc_trim(ctypes.c_size_t(0)) == 1


def _resident_beside_malloc() -> int:
    """Resident anonymous bytes that malloc has not allocated: free, or of other allocators. Without
    glibc's counts (before 2.33) all resident anonymous bytes; 0 without /proc.
    """
    try:
        fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    # Resident less shared pages: mapped files, such as cached states, are not malloc's.
    own = (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    return max(0, own - _in_use())


class _Counts(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _in_use() -> int:
    """Bytes that malloc has allocated."""
    mallinfo = _of_the_c_library("mallinfo2")
    if mallinfo is None:
        return 0
    mallinfo.restype = _Counts
    counts = mallinfo()
    # `uordblks` leaves out blocks that malloc mapped by themselves.
    return int(counts.uordblks + counts.hblkhd)


def _of_the_c_library(name: str) -> Any | None:
    """A function of the C library; None if it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
