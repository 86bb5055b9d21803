"""Multi-label classification: binary cross-entropy of each label, mean over labels."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import Evaluation, Indices, at_least_fp32
from peftsearch.training.objectives.head_objective import HeadObjective, outputs_of

__all__ = ["LabelSets"]


class LabelSets(HeadObjective):
    """Any number of `outputs` labels for each example."""

    initial_loss = math.log(2)
    max_loss = 4 * math.log(2)

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def targets(self, model: TunedModel, data: Encoded, indices: Indices) -> Tensor:
        """0.0 and 1.0, [batch, labels] in the head's dtype: `without_targets` sets NaN in them."""
        assert model.head is not None
        return data.labels_of(indices).to(model.head.dtype)

    def loss_of_logits(self, model: TunedModel, outputs: Tensor, targets: Tensor) -> Tensor:
        """Summed over examples, mean over labels. Label smoothing moves 0 and 1 towards a half, as
        it moves labels of a classification towards the uniform distribution.
        """
        ignored = targets.isnan()
        logits = at_least_fp32(outputs)
        smoothing = model.configuration.training.label_smoothing
        # Ignored targets are replaced by 0, not weighted by it: NaN · 0 is NaN, in gradients too.
        smoothed = targets * (1 - smoothing) + smoothing / 2
        each = _losses(logits, smoothed.masked_fill(ignored, 0).to(logits.dtype))
        return each.masked_fill(ignored, 0).sum() / targets.shape[1]

    def evaluate(self, model: TunedModel, data: Encoded, predict: bool = True) -> Evaluation:
        logits = outputs_of(model, data)
        losses = _losses(logits, data.labels.to(logits.dtype)).mean(1)
        predicted = logits.double().numpy()
        return Evaluation(predicted, losses.double().numpy(), np.ones(len(data), np.int64))


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropies [batch, labels] of logits and targets of that shape."""
    return binary_cross_entropy_with_logits(logits, targets, reduction="none")
