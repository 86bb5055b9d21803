"""Regression: squared error of one number.

The head predicts in units of the training targets' mean and standard deviation, so that learning
rates mean the same whatever the numbers' scale.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn.functional import mse_loss

from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import Evaluation, Indices, at_least_fp32
from peftsearch.training.objectives.head_objective import HeadObjective, outputs_of

__all__ = ["Values"]


class Values(HeadObjective):
    """One number for each example; `mean` and `spread` (standard deviation) of training targets."""

    outputs = 1
    initial_loss = 1.0
    max_loss = 4.0

    def __init__(self, mean: float, spread: float) -> None:
        self.mean, self.spread = mean, spread

    @classmethod
    def of(cls, train: Encoded) -> Values:
        """The objective with mean and standard deviation of the training examples."""
        numbers = train.labels.double()
        # Equal numbers have no spread to divide by.
        return cls(float(numbers.mean()), max(float(numbers.std(correction=0)), 1e-12))

    def targets(self, model: TunedModel, data: Encoded, indices: Indices) -> Tensor:
        """Standardised numbers [batch] in the head's dtype."""
        assert model.head is not None
        return ((data.labels_of(indices) - self.mean) / self.spread).to(model.head.dtype)

    def loss_of_logits(self, model: TunedModel, outputs: Tensor, targets: Tensor) -> Tensor:
        ignored = targets.isnan()
        # Ignored targets are replaced, not weighted by 0: NaN · 0 is NaN, in gradients too.
        predicted = at_least_fp32(outputs)[:, 0].masked_fill(ignored, 0)
        return mse_loss(predicted, targets.masked_fill(ignored, 0), reduction="sum")

    def evaluate(self, model: TunedModel, data: Encoded, predict: bool = True) -> Evaluation:
        scaled = outputs_of(model, data)[:, 0].double().numpy()
        targets = (data.labels.double().numpy() - self.mean) / self.spread
        predicted = scaled * self.spread + self.mean
        return Evaluation(predicted, (scaled - targets) ** 2, np.ones(len(data), np.int64))
