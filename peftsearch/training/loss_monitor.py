"""A training loss under watch: smoothed, and refused where it is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from peftsearch.errors import Diverged, NotANumber
from peftsearch.training.objectives.base import Objective

__all__ = ["LossMonitor"]

_SMOOTHING = 0.9
_RISE = 2.0
_STEPS = {"cuda": 16}
"""Steps between two looks: on a GPU a look waits for everything that was begun."""


class LossMonitor:
    """Losses of steps, looked at after every few of them: a function of the step alone."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self.objective = objective
        self.smoothed, self.first = objective.initial_loss, 0.0
        self._every = _STEPS.get(device.type, 1)
        self._unseen: list[tuple[int, list[Tensor]]] = []

    def add(self, step: int, losses: Sequence[Tensor]) -> None:
        """The losses of a step's pieces, which add up to the batch's mean."""
        self._unseen.append((step, list(losses)))
        if step % self._every == 0:
            self.check()

    def check(self) -> None:
        """Take in what has not been looked at; NotANumber or Diverged where training is lost."""
        unseen, self._unseen = self._unseen, []
        for step, losses in unseen:
            self._see(step, sum(loss.item() for loss in losses))

    def _see(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise NotANumber(f"training loss became {loss} at step {step}")
        if self.smoothed is None:
            self.smoothed = self.first = loss
        self.smoothed = _SMOOTHING * self.smoothed + (1 - _SMOOTHING) * loss
        # A model may begin beyond the limit (an untuned head of another size): that is no fault.
        if self.smoothed > max(self.objective.max_loss, _RISE * self.first):
            raise Diverged(
                f"training loss rose to {self.smoothed:.2f} by step {step}, "
                f"over {self.objective.max_loss_meaning}"
            )
