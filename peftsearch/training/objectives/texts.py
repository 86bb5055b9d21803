"""Text generation: cross-entropy of each target token, given the input and the tokens before it."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from peftsearch.backbone.loading.language import decoder_inputs
from peftsearch.backbone.loading.load import Backbone
from peftsearch.task.spec import Generation
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.encode_texts import Writing
from peftsearch.task.tokens.ragged import Ragged
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import (
    Evaluation,
    Indices,
    Objective,
    at_least_fp32,
    read_batches,
    without_gradients,
)
from peftsearch.training.objectives.generation import generate
from peftsearch.training.objectives.model_inputs import IGNORED, ModelInputs

__all__ = ["Texts", "target_logits"]

_LOSS_EXAMPLES = 16
"""Least examples whose loss is computed when texts are generated: the loss is for the curves alone,
a quarter of the examples is enough.
"""


@dataclass
class Texts(Objective):
    """Texts of an encoder-decoder or a decoder; `max_tokens`: tokens that targets are cut to."""

    backbone: Backbone
    writing: Writing
    generation: Generation
    max_tokens: int
    max_loss_meaning = "2 times that of finding every token equally likely"

    def __post_init__(self) -> None:
        self.max_loss = 2 * math.log(int(self.backbone.lm.config.vocab_size))

    def weight(self, data: Encoded, indices: Indices) -> int:
        return int(self._weights(data, indices).sum())

    def _weights(self, data: Encoded, indices: Indices) -> Indices:
        """Predicted tokens of each example [batch]. A decoder does not predict the first token of a
        target without a prompt: nothing comes before it.
        """
        assert data.written is not None
        written: Indices = data.written.lengths[indices]
        if not self.writing.is_decoder:
            return written
        return np.asarray(written - (data.inputs.lengths[indices] == 0), np.int64)

    def loss(self, model: TunedModel, data: Encoded, indices: Indices) -> Tensor:
        logits, targets = target_logits(model, data, indices, self.writing.is_decoder)
        return _summed_loss(model, logits, targets)

    def model_inputs(self, model: TunedModel, data: Encoded, indices: Indices) -> ModelInputs:
        return _model_inputs(self.backbone.lm, data, indices, self.writing.is_decoder)

    def forward(self, backbone: Backbone, inputs: ModelInputs) -> Tensor:
        return _logits(backbone.lm, inputs)

    def loss_of_outputs(self, model: TunedModel, outputs: Tensor, inputs: ModelInputs) -> Tensor:
        return _summed_loss(model, outputs, inputs.targets)

    def first_stack_inputs(self, data: Encoded) -> Encoded:
        """Prompt and response end to end for a decoder; inputs alone for an encoder."""
        if not self.writing.is_decoder:
            return data
        assert data.written is not None
        return replace(data, inputs=Ragged.end_to_end(data.inputs, data.written), written=None)

    def evaluate(self, model: TunedModel, data: Encoded, predict: bool = True) -> Evaluation:
        with without_gradients(model.optimisations):
            return self._evaluate(model, data, predict)

    def _evaluate(self, model: TunedModel, data: Encoded, predict: bool) -> Evaluation:
        predicted = self.write(model, data) if predict else None
        if predict:
            data = data.first(max(_LOSS_EXAMPLES, len(data) // 4))
        losses = np.zeros(len(data))
        for indices in read_batches(data.lengths, model):
            model.before_batch()
            logits, targets = target_logits(model, data, indices, self.writing.is_decoder)
            # `cross_entropy` wants classes in the second dimension: [batch, vocabulary, tokens].
            each = cross_entropy(
                at_least_fp32(logits.transpose(1, 2)),
                targets,
                ignore_index=IGNORED,
                reduction="none",
            )
            losses[indices] = each.sum(1).double().cpu().numpy()
        return Evaluation(predicted, losses, self._weights(data, np.arange(len(data))))

    def write(self, model: TunedModel, data: Encoded) -> list[str]:
        """The texts that the model generates, in the examples' order."""
        return generate(
            *(model.backbone.lm, data, self.writing, self.generation, self.max_tokens),
            encoder_context=None if self.writing.is_decoder else model.with_frozen_states,
            positions=model.positions,
            before_batch=model.before_batch,
        )


def target_logits(
    model: TunedModel, data: Encoded, indices: Indices, is_decoder: bool
) -> tuple[Tensor, Tensor]:
    """Logits [batch, tokens, vocabulary] and target token ids [batch, tokens], on the model's
    device. Targets of prompts and padding are -100. `tokens`: a target's, or a decoder's from the
    batch's first response token on.
    """
    inputs = _model_inputs(model.backbone.lm, data, indices, is_decoder).to(model.backbone.device)
    with model.reading(data, indices):
        return _logits(model.backbone.lm, inputs), inputs.targets


def _summed_loss(model: TunedModel, logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy summed over target tokens, a scalar tensor []. `logits`: [batch, tokens,
    vocabulary], `targets`: [batch, tokens].
    """
    return cross_entropy(
        *(at_least_fp32(logits.flatten(0, 1)), targets.flatten()),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=model.configuration.training.label_smoothing,
    )


def _model_inputs(lm: Any, data: Encoded, indices: Indices, is_decoder: bool) -> ModelInputs:
    """Inputs of the language model and target token ids, on the host."""
    data, indices = data.read(indices)
    assert data.written is not None
    if is_decoder:
        return _continued(data.inputs, data.written, indices, data.pad_id)
    ids, mask = data.written.padded(indices, data.pad_id)
    if not ids.shape[1]:  # targets without a token, of a model without an end of text
        ids, mask = ids.new_full((len(ids), 1), data.pad_id), mask.new_zeros(len(mask), 1)
    targets = ids.masked_fill(~mask, IGNORED)
    follows = {"decoder_input_ids": decoder_inputs(lm, targets, data.pad_id)}
    return ModelInputs({**data.batch(indices), **follows}, data.pad_id, targets)


def _continued(prompts: Ragged, written: Ragged, indices: Indices, padding: int) -> ModelInputs:
    """Inputs of a decoder: prompt and response as one text, with the response as targets."""
    ids, mask, is_response = prompts_with_responses(prompts, written, indices, padding)
    # The logits of a token predict the next one.
    targets = ids.masked_fill(~is_response, IGNORED)[:, 1:]
    asked = is_response[:, 1:].any(0).int()
    # No logits are computed for tokens that are targets in none of the texts.
    first = int(asked.argmax()) if len(asked) else 0
    read = {"input_ids": ids, "attention_mask": mask.long()}
    return ModelInputs(read, padding, targets[:, first:], first)


def _logits(lm: Any, inputs: ModelInputs) -> Tensor:
    """Logits [texts, tokens, vocabulary] that predict `inputs.targets` [texts, tokens]."""
    if "decoder_input_ids" in inputs.tensors:
        logits: Tensor = lm(**inputs.tensors, use_cache=False).logits
        return logits
    tokens = inputs.tensors["input_ids"].shape[1]
    options: dict[str, Any] = {"use_cache": False}
    # Not every family's forward has the argument; the others compute all logits, cut off below.
    if inputs.first_target and "logits_to_keep" in inspect.signature(lm.forward).parameters:
        options["logits_to_keep"] = torch.arange(inputs.first_target, tokens, device=lm.device)
    logits = lm(**inputs.tensors, **options).logits
    logits = logits if logits.shape[1] < tokens else logits[:, inputs.first_target :]
    return logits[:, :-1]


def prompts_with_responses(
    prompts: Ragged, written: Ragged, indices: Indices, padding: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt and response of each example end to end, padded at the end.

    Returns token ids, a mask of what is no padding, and a mask of responses, [batch, tokens] each.
    """
    pairs = [(prompts.row(i).tolist(), written.row(i).tolist()) for i in indices.tolist()]
    whole = Ragged.of([[*prompt, *response] for prompt, response in pairs])
    ids, mask = whole.padded(np.arange(len(pairs)), padding)
    begins = torch.tensor([len(prompt) for prompt, _ in pairs])[:, None]
    return ids, mask, mask & (torch.arange(ids.shape[1]) >= begins)
