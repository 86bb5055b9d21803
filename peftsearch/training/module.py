"""A tuned model as an `nn.Module` with the forward of a transformers model, for any training loop.

Its parameters are the tuned ones and the head's; the frozen backbone is not registered, so that a
checkpoint of a `transformers.Trainer` is small and complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    mse_loss,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from peftsearch.backbone.attach.attachment import registered_name
from peftsearch.backbone.loading.load import Backbone
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import at_least_fp32

__all__ = ["TunedModule"]


class TunedModule(nn.Module):
    """`forward` takes a tokenizer's output and labels, and returns an output with `loss` (None
    without labels) and `logits`: [batch, outputs], or [batch, tokens, vocabulary] of a model
    without a head.

    `value_scale`: mean and standard deviation of the training targets, whose units a head's numbers
    are in. `gives_sets`: each output is one label, which a text has or has not.
    """

    def __init__(
        self,
        tuned: TunedModel,
        value_scale: tuple[float, float] | None = None,
        gives_sets: bool = False,
    ) -> None:
        super().__init__()
        self.value_scale, self.gives_sets = value_scale, gives_sets
        self._hold(tuned)
        self.eval()

    def _hold(self, tuned: TunedModel) -> None:
        """Register the head, the tuned parameters and their indices."""
        attachment = tuned.attachment
        self.tuned = tuned
        self.head = tuned.head
        self.adapter = nn.Module()
        for name, parameter in attachment.tensors.items():
            self.adapter.register_parameter(registered_name(name), parameter)
        for name, indices in attachment.indices.items():
            self.adapter.register_buffer(registered_name(name), indices)

    @property
    def backbone(self) -> Backbone:
        return self.tuned.backbone

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Any:
        """`input_ids`, `attention_mask`, `token_type_ids`: [batch, tokens]. `labels`: label indices
        or numbers [batch], 0 or 1 for sets of labels [batch, outputs], or without a head token ids
        [batch, tokens], -100 where none is predicted. The loss is a mean; of numbers in units of
        `value_scale`.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.head is None:
            return self.backbone.lm(input_ids=input_ids, attention_mask=mask, labels=labels)
        outputs = at_least_fp32(self.tuned(input_ids, mask, self._known_types(token_type_ids)))
        loss = None if labels is None else self._loss(outputs, labels)
        return SequenceClassifierOutput(loss=loss, logits=self._in_own_units(outputs))

    def _known_types(self, token_type_ids: Tensor | None) -> Tensor | None:
        """Token types, or None if the tokenizer gives none or the model has embeddings of one type
        only.
        """
        known = "token_type_ids" in self.backbone.tokenizer.model_input_names
        return token_type_ids if known and self.backbone.type_rows > 1 else None

    def _loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean loss, a scalar tensor [], of outputs [batch, outputs]."""
        if self.gives_sets:
            return binary_cross_entropy_with_logits(outputs, labels.to(outputs.dtype))
        if self.value_scale is None:
            return cross_entropy(outputs, labels.flatten().long())
        mean, spread = self.value_scale
        return mse_loss(outputs[:, 0], ((labels.flatten() - mean) / spread).to(outputs.dtype))

    def _in_own_units(self, outputs: Tensor) -> Tensor:
        """Logits, or numbers in the units of the data, [batch, outputs]."""
        if self.value_scale is None:
            return outputs
        mean, spread = self.value_scale
        return outputs * spread + mean

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TunedModule:
        """Move or cast everything, as `to`, `cuda` and `double` do. Hooks hold tensors that are no
        parameters, so the configuration is attached again to the backbone once that was moved.
        """
        backbone, before = self.backbone, self.tuned
        # `fn` is opaque: an empty tensor shows the device and dtype that it leads to.
        probe = fn(torch.empty(0, dtype=backbone.dtype, device=backbone.device))
        if (probe.device, probe.dtype) == (backbone.device, backbone.dtype):
            return self
        stored = {name: tensor.clone() for name, tensor in before.stored().items()}
        before.detach()
        (backbone.model if backbone.lm is None else backbone.lm)._apply(fn)
        tuned = TunedModel(backbone, before.configuration, before.outputs, finished=True)
        tuned.load(stored)
        self._hold(tuned)
        return self
