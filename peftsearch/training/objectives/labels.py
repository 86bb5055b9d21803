"""Classification: cross-entropy over label logits."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from peftsearch.task.encode import Encoded
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import (
    Evaluation,
    Indices,
    Objective,
    at_least_fp32,
    read_batches,
    without_gradients,
)

__all__ = ["Labels", "outputs_of"]


class Labels(Objective):
    """`outputs` labels."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs
        self.begins_at = math.log(outputs)
        self.limit = 4 * math.log(max(outputs, 2))

    def weight(self, data: Encoded, indices: Indices) -> int:
        return len(indices)

    def loss(self, model: TunedModel, data: Encoded, indices: Indices) -> Tensor:
        device = model.backbone.device
        logits = at_least_fp32(model.outputs_of(data, indices))
        smoothing = model.configuration.training.label_smoothing
        targets = data.labels_of(indices, device)
        return cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)

    def evaluate(self, model: TunedModel, data: Encoded, predict: bool = True) -> Evaluation:
        logits = outputs_of(model, data)
        losses = cross_entropy(logits, torch.as_tensor(data.labels), reduction="none")
        predicted = logits.argmax(-1).numpy()
        return Evaluation(predicted, losses.double().numpy(), np.ones(len(data), np.int64))


def outputs_of(model: TunedModel, data: Encoded) -> Tensor:
    """The head's outputs (n, outputs) in the examples' order."""
    if len(data) == 0:
        return torch.empty(0, model.outputs)
    with without_gradients(model.levers):
        batches = read_batches(data.inputs.lengths, model)
        outputs = [model.outputs_of(data, indices) for indices in batches]
        order = torch.from_numpy(np.argsort(np.concatenate(batches)))
        return at_least_fp32(torch.cat(outputs)).cpu()[order]
