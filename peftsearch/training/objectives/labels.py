"""Classification: cross-entropy over label logits."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import Evaluation, Indices, at_least_fp32
from peftsearch.training.objectives.head_objective import HeadObjective, outputs_of

__all__ = ["Labels"]


class Labels(HeadObjective):
    """One of `outputs` labels for each example."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs
        self.initial_loss = math.log(outputs)
        # One label alone would have a limit of 0.
        self.max_loss = 4 * math.log(max(outputs, 2))

    def targets(self, model: TunedModel, data: Encoded, indices: Indices) -> Tensor:
        """Label indices [batch] int64."""
        return data.labels_of(indices)

    def loss_of_logits(self, model: TunedModel, outputs: Tensor, targets: Tensor) -> Tensor:
        logits = at_least_fp32(outputs)
        smoothing = model.configuration.training.label_smoothing
        return cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)

    def evaluate(self, model: TunedModel, data: Encoded, predict: bool = True) -> Evaluation:
        logits = outputs_of(model, data)
        losses = cross_entropy(logits, torch.as_tensor(data.labels), reduction="none")
        predicted = logits.argmax(-1).numpy()
        return Evaluation(predicted, losses.double().numpy(), np.ones(len(data), np.int64))
