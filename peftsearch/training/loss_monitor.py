"""Loss monitor: smooths the training loss, and ends runs whose loss is not finite or diverges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from peftsearch.errors import Diverged, NotANumber
from peftsearch.training.device_losses import DeviceLoss
from peftsearch.training.objectives.base import Objective

__all__ = ["LossMonitor"]

_SMOOTHING = 0.9
"""Weight of the past in the exponential moving average of losses."""
_RISE = 2.0
"""A smoothed loss may reach this multiple of the first one, whatever the objective's limit."""
_STEPS = {"cuda": 16}
"""Steps between two checks, by device: on a GPU reading a loss waits for all launched work."""


class LossMonitor:
    """Checks the losses of steps, after every few of them: when is a function of the step alone."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self.objective = objective
        self.smoothed, self.first = objective.initial_loss, 0.0
        self._every = _STEPS.get(device.type, 1)
        self._unseen: list[tuple[int, list[DeviceLoss]]] = []

    def add(self, step: int, losses: Sequence[DeviceLoss]) -> None:
        """Add the losses of a step's pieces, which add up to the batch's mean.

        Raises NotANumber or Diverged, also for steps before.
        """
        self._unseen.append((step, list(losses)))
        if step % self._every == 0:
            self.check()

    def check(self) -> None:
        """Check all losses added since the last time; raises NotANumber or Diverged."""
        unseen, self._unseen = self._unseen, []
        for step, losses in unseen:
            self._see(step, sum(loss.value() for loss in losses))

    def _see(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise NotANumber(f"training loss became {loss} at step {step}")
        if self.smoothed is None:
            self.smoothed = self.first = loss
        self.smoothed = _SMOOTHING * self.smoothed + (1 - _SMOOTHING) * loss
        # A run may begin above the limit, say with an untuned head: that alone is no failure.
        if self.smoothed > max(self.objective.max_loss, _RISE * self.first):
            raise Diverged(
                f"training loss rose to {self.smoothed:.2f} by step {step}, "
                f"over {self.objective.max_loss_meaning}"
            )
