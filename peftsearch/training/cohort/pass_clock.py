"""Pass clock: times passes of unchanged members, to choose the size of a cohort by."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from peftsearch.training.cohort.size import CohortSize, Memory, memory_of
from peftsearch.training.loop import TrainingRun
from peftsearch.training.memory.peak import PeakMemory

__all__ = ["PassClock"]

_WINDOW = 16
"""Passes that are timed as one."""
_SETTLING = 4
"""Passes before them, in which allocator and kernels warm up."""


class PassClock:
    """Reports to `size` the seconds that passes take and the bytes they need."""

    def __init__(self, device: torch.device, size: CohortSize) -> None:
        self.device, self.size = device, size
        self.before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        self._members: list[TrainingRun] = []
        self._passes, self._began = 0, 0.0
        self._peaks: dict[int, int] = {}
        """Members → peak bytes of their ordinary passes: replays allocate nothing."""

    def passed(self, runs: list[TrainingRun], is_ordinary: bool = True) -> None:
        """Called after every pass; one that recorded something is no measure of the next ones."""
        if self.size.is_settled:
            return
        if runs != self._members:
            self._members, self._passes = list(runs), 0
            if self.device.type == "cuda":
                PeakMemory.look_all()
                torch.cuda.reset_peak_memory_stats(self.device)
        if not is_ordinary:
            self._memory(len(runs))
            self._passes = 0
            return
        self._passes += 1
        if self._passes == _SETTLING:
            self._began = self._now()
        elif self._passes == _SETTLING + _WINDOW:
            pass_s = (self._now() - self._began) / _WINDOW
            self.size.measured(len(runs), pass_s, self._memory(len(runs)))
            self.restart()

    def restart(self) -> None:
        """Discard what was timed: something other than passes has taken time."""
        self._members = []

    def _memory(self, members: int) -> Memory | None:
        memory = memory_of(self.device, self.before)
        if memory is None:
            return None
        self._peaks[members] = max(memory.peak, self._peaks.get(members, 0))
        return replace(memory, peak=self._peaks[members])

    def _now(self) -> float:
        if self.device.type == "cuda":  # passes are launched, not done, when the host goes on
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
