"""Pieces of a batch: the forward and backward passes that make up one optimiser step."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.batches import BatchOrder
from peftsearch.training.device_losses import DeviceLoss
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import Objective
from peftsearch.training.positions import max_trained_positions

__all__ = ["Pieces"]


class Pieces:
    """The pieces of the step under way: its whole batch, or with accumulation parts of it.

    A piece's summed loss, divided by `divisor`, is its share of the mean loss of the batch, so that
    gradients of all pieces add up to those of the whole batch.
    """

    def __init__(
        self, model: TunedModel, objective: Objective, data: Encoded, order: BatchOrder
    ) -> None:
        self.model, self.objective, self.data, self.order = model, objective, data, order
        self.divisor = 1
        self.losses: list[DeviceLoss] = []
        """Shares of the mean loss, of pieces that are done."""
        self._left: list[NDArray[np.int64]] | None = None

    @property
    def all_taken(self) -> bool:
        """Whether the step under way has no further piece."""
        return self._left is not None and not self._left

    @property
    def between_steps(self) -> bool:
        """Whether no step is under way."""
        return self._left is None

    def take(self, step: int) -> NDArray[np.int64]:
        """The examples of the next piece, of a new step if none is under way."""
        if self._left is None:
            batch = self.order.batch(step)
            self.divisor = max(self.objective.weight(self.data, batch), 1)
            self._left = np.array_split(batch, self._count(batch))
            self.losses = []
        return self._left.pop(0)

    def end_step(self) -> None:
        """Forget the step under way: the next piece is the first one of a step."""
        self._left = None

    def _count(self, batch: NDArray[np.int64]) -> int:
        """Number of pieces: `accumulation`, or more where a prompt makes the batch too large."""
        device: torch.device = self.model.backbone.device
        parts = self.model.positions.parts(self.order.lengths[batch], max_trained_positions(device))
        return max(min(self.model.configuration.training.accumulation, len(batch)), parts)
