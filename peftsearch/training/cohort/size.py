"""How many configurations share a pass: doubled while a device has the memory, and gains by it.

A pass of K members that takes little longer than one of K/2 is nearly twice as many trials an hour;
once the device is busy it is none. Both are measured on the passes of the search itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["CohortSize", "Memory", "memory_of"]

PAYS = 0.9
"""A member's share of a pass must fall at least to this part of what it was at half the size."""
_USED = 0.85
"""Share of a device's free memory that passes may come to need."""
_MOST = 64


@dataclass(frozen=True)
class Memory:
    """Of a device, in bytes: what was held before any member came, at most since, and all that this
    process could hold.
    """

    before: int
    peak: int
    most: int

    def fits(self, members: int, measured: int) -> bool:
        """Whether `members` find room, if `measured` of them needed what was seen."""
        each = (self.peak - self.before) / measured
        return self.before + members * each <= _USED * self.most


@dataclass
class CohortSize:
    """`size` members at a time, at most `most`. Given a number by the user, it stays that."""

    most: int = _MOST
    size: int = 1
    _each_s: float = float("inf")
    """Seconds a member at half the present size."""

    @classmethod
    def of(cls, asked: int | None, device: torch.device) -> CohortSize:
        """As asked for; else measured on a GPU, and one at a time on a CPU, which one keeps busy
        (docs/performance.md).
        """
        if asked is not None:
            return cls(asked, asked)
        return cls(_MOST if device.type == "cuda" else 1)

    @property
    def is_settled(self) -> bool:
        return self.size >= self.most

    def measured(self, members: int, pass_s: float, memory: Memory | None) -> None:
        """A pass of so many members took so long."""
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
        """No more than that from now on: a pass of more did not fit, or gained nothing."""
        self.size = self.most = max(1, size)


def memory_of(device: torch.device, before: int) -> Memory | None:
    """Of a GPU, since the peak was last reset; None of a CPU."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_reserved(device)
    return Memory(before, torch.cuda.max_memory_allocated(device), free + own)
