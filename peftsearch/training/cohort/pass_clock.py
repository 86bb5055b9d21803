"""Times passes of unchanged members, for the size of a cohort to be chosen by."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from peftsearch.training.cohort.size import CohortSize, Memory, memory_of
from peftsearch.training.loop import TrainingRun

__all__ = ["PassClock"]

_WINDOW = 16
"""Passes that are timed as one."""
_SETTLING = 4
"""Passes before them, in which a device finds its memory and its kernels."""


class PassClock:
    """Tells `size` what passes take, and what memory they need."""

    def __init__(self, device: torch.device, size: CohortSize) -> None:
        self.device, self.size = device, size
        self.before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        self._members: list[TrainingRun] = []
        self._passes, self._began = 0, 0.0
        self._peaks: dict[int, int] = {}
        """Members → bytes: replays allocate nothing, so what ordinary passes needed is kept."""

    def passed(self, runs: list[TrainingRun], is_ordinary: bool = True) -> None:
        """After a pass; one in which something was recorded is no measure of the next ones."""
        if self.size.is_settled:
            return
        if runs != self._members:
            self._members, self._passes = list(runs), 0
            if self.device.type == "cuda":
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
        """Something else than passes has taken time."""
        self._members = []

    def _memory(self, members: int) -> Memory | None:
        memory = memory_of(self.device, self.before)
        if memory is None:
            return None
        self._peaks[members] = max(memory.peak, self._peaks.get(members, 0))
        return replace(memory, peak=self._peaks[members])

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
