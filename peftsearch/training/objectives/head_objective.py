"""Base of objectives with a trained head: one vector of logits an example."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.states import last_states
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.transfer import to_device
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import (
    Indices,
    Objective,
    at_least_fp32,
    read_batches,
    without_gradients,
)
from peftsearch.training.objectives.model_inputs import ModelInputs

__all__ = ["HeadObjective", "outputs_of"]


class HeadObjective(Objective):
    """One vector of the head's logits for each example."""

    @abstractmethod
    def targets(self, model: TunedModel, data: Encoded, indices: Indices) -> Tensor:
        """Targets [batch], or of sets of labels [batch, labels], on the host."""

    @abstractmethod
    def loss_of_logits(self, model: TunedModel, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits [batch, outputs], summed over examples: a scalar tensor [].

        `targets`: as `targets()` gives them, on the device of the logits.
        """

    def weight(self, data: Encoded, indices: Indices) -> int:
        return len(indices)

    def loss(self, model: TunedModel, data: Encoded, indices: Indices) -> Tensor:
        outputs = model.outputs_of(data, indices)
        targets = to_device(self.targets(model, data, indices), outputs.device)
        return self.loss_of_logits(model, outputs, targets)

    def model_inputs(self, model: TunedModel, data: Encoded, indices: Indices) -> ModelInputs:
        return ModelInputs(data.batch(indices), data.pad_id, self.targets(model, data, indices))

    def forward(self, backbone: Backbone, inputs: ModelInputs) -> Tensor:
        return last_states(backbone, **inputs.tensors)

    def loss_of_outputs(self, model: TunedModel, outputs: Tensor, inputs: ModelInputs) -> Tensor:
        logits = model.read(outputs, inputs.tensors["attention_mask"])
        return self.loss_of_logits(model, logits, inputs.targets)


def outputs_of(model: TunedModel, data: Encoded) -> Tensor:
    """Logits of all examples, [n, outputs] in their order, on the CPU in fp32 or better."""
    if len(data) == 0:
        return torch.empty(0, model.outputs)
    with without_gradients(model.optimisations):
        batches = read_batches(data.inputs.lengths, model)
        outputs = []
        for indices in batches:
            model.before_batch()
            outputs.append(model.outputs_of(data, indices))
        order = torch.from_numpy(np.argsort(np.concatenate(batches)))
        return at_least_fp32(torch.cat(outputs)).cpu()[order]
