"""Cohort size: configurations that share a pass, doubled while memory allows and a device gains.

A pass of K members that takes little longer than one of K/2 gives nearly twice as many trials an
hour; once the device is busy, it gives none. Both are measured on the search's own passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["CohortSize", "Memory", "memory_of"]

PAYS = 0.9
"""A member's share of a pass, in seconds, must fall at least to this share of what it was at half
the size.
"""
_USED = 0.85
"""Share of the memory that passes may need."""
_MOST = 64


@dataclass(frozen=True)
class Memory:
    """Memory of a device, in bytes."""

    before: int
    """Allocated before there was any member."""
    peak: int
    """The most allocated since."""
    most: int
    """The most that this process could hold."""

    def fits(self, members: int, measured: int) -> bool:
        """Whether `members` fit, if `measured` of them needed `peak`."""
        each = (self.peak - self.before) / measured
        return self.before + members * each <= _USED * self.most


@dataclass
class CohortSize:
    """`size` members at a time, at most `most`; fixed where the user named a number."""

    most: int = _MOST
    size: int = 1
    _each_s: float = float("inf")
    """Seconds a member at half the present size."""

    @classmethod
    def of(cls, asked: int | None, device: torch.device) -> CohortSize:
        """The requested number; None: measured on a GPU, and one on a CPU, where larger passes gain
        nothing: 1, 4 and 8 members took 436, 572 and 605 ms a step each (docs/performance.md).
        """
        if asked is not None:
            return cls(asked, asked)
        return cls(_MOST if device.type == "cuda" else 1)

    @property
    def is_settled(self) -> bool:
        return self.size >= self.most

    def measured(self, members: int, pass_s: float, memory: Memory | None) -> None:
        """Record the duration of a pass with this many members, and grow or settle."""
        # Passes of fewer members, as at the end of a search, say nothing about this size.
        if self.is_settled or members < self.size:
            return
        each_s = pass_s / members
        if each_s > PAYS * self._each_s:
            self.shrink(max(1, self.size // 2))
        elif memory is not None and not memory.fits(2 * members, members):
            self.most = self.size
        else:
            self._each_s = each_s
            self.size = min(2 * self.size, self.most)

    def shrink(self, size: int) -> None:
        """At most `size` from now on: a larger pass did not fit, or gained nothing."""
        self.size = self.most = max(1, size)


def memory_of(device: torch.device, before: int) -> Memory | None:
    """Memory of a GPU since its peak was last reset; None for a CPU."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_reserved(device)
    return Memory(before, torch.cuda.max_memory_allocated(device), free + own)
