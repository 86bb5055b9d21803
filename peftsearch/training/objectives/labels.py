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
from peftsearch.training.objectives.heads import Headed, outputs_of

__all__ = ["Labels"]


class Labels(Headed):
    """`outputs` labels."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs
        self.begins_at = math.log(outputs)
        self.limit = 4 * math.log(max(outputs, 2))

    def wanted(self, model: TunedModel, data: Encoded, indices: Indices) -> Tensor:
        return data.labels_of(indices)

    def compared(self, model: TunedModel, outputs: Tensor, wanted: Tensor) -> Tensor:
        logits = at_least_fp32(outputs)
        smoothing = model.configuration.training.label_smoothing
        return cross_entropy(logits, wanted, reduction="sum", label_smoothing=smoothing)

    def evaluate(self, model: TunedModel, data: Encoded, predict: bool = True) -> Evaluation:
        logits = outputs_of(model, data)
        losses = cross_entropy(logits, torch.as_tensor(data.labels), reduction="none")
        predicted = logits.argmax(-1).numpy()
        return Evaluation(predicted, losses.double().numpy(), np.ones(len(data), np.int64))
