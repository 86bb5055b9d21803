"""Freed memory stays with the process while a trial runs: glibc's malloc, told so; and given back
when there is much of it.

As it comes, malloc gives large tensors back to the kernel when they are freed, and has them mapped
and filled with zeros anew a moment later: 2,000 to 16,000 page faults in a trial of 384 tweets,
mostly none with this. The setting holds for the whole process and is not undone, so that a worker
would keep whatever its largest trial needed, and what its heap is torn to in between: 8.8 GB after
124 mixed trials of a model of 22 million parameters.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["BETWEEN_TRIALS", "WITHIN_A_TRIAL", "give_back", "keep_freed_memory", "trim"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Names of malloc.h."""
_PAD = 1 << 28
"""Bytes asked of the kernel at a time."""
_LARGEST = 2**31 - 1
"""mallopt takes a C int."""
_USUAL_MOST = 2**25
"""Older glibc maps whatever is larger than this anew, and refuses to be told otherwise."""

BETWEEN_TRIALS, WITHIN_A_TRIAL = 512 << 20, 2 << 30
"""Bytes that are resident and free above which they are given back: ordinary trials of a small
model leave less, and find their pages where they were; a trial is likely to need again what it has
just freed (docs/performance.md).
"""


@cache
def keep_freed_memory() -> bool:
    """Once a process; False where there is no such setting (musl, macOS)."""
    mallopt = _of_the_c_library("mallopt")
    if mallopt is None:
        return False
    mapped = any(mallopt(_MMAP_THRESHOLD, most) == 1 for most in (_LARGEST, _USUAL_MOST))
    others = [mallopt(_TRIM_THRESHOLD, _LARGEST), mallopt(_TOP_PAD, _PAD)]
    return mapped and others == [1, 1]


def give_back(above: int) -> bool:
    """Give free memory back to the kernel if more than so many bytes of it are resident; whether it
    was done. To be called where tensors have just been freed.
    """
    if _resident_beside_malloc() - _Rest.others <= above or not trim():
        return False
    _Rest.others = _resident_beside_malloc()
    return True


class _Rest:
    """What was resident when malloc last held nothing that is free: other allocators' memory,
    such as Python's own for the task's texts.
    """

    others: ClassVar[int] = 0


def trim() -> bool:
    """Give all free memory back to the kernel; False where the C library cannot (musl, macOS)."""
    malloc_trim = _of_the_c_library("malloc_trim")
    return malloc_trim is not None and malloc_trim(ctypes.c_size_t(0)) == 1


def _resident_beside_malloc() -> int:
    """Bytes that are resident, in no file, and not handed out by malloc: free, or others'.
    Without glibc's counts (before 2.33) all that are resident; 0 where there is no /proc.
    """
    try:
        fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
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
    """Bytes that malloc has handed out."""
    mallinfo = _of_the_c_library("mallinfo2")
    if mallinfo is None:
        return 0
    mallinfo.restype = _Counts
    counts = mallinfo()
    return int(counts.uordblks + counts.hblkhd)


def _of_the_c_library(name: str) -> Any | None:
    """A function that not every C library has."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
