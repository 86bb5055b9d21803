"""Text generation: cross-entropy of each target token, given the input and the tokens before it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
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
        logits, inputs = target_logits(model, data, indices, self.writing.is_decoder)
        return _summed_loss(model, logits, inputs.targets)

    def model_inputs(self, model: TunedModel, data: Encoded, indices: Indices) -> ModelInputs:
        everywhere = not model.optimisations.logits
        return _model_inputs(self.backbone.lm, data, indices, self.writing.is_decoder, everywhere)

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
            logits, inputs = target_logits(model, data, indices, self.writing.is_decoder)
            each = cross_entropy(
                *(at_least_fp32(logits), inputs.targets), ignore_index=IGNORED, reduction="none"
            )
            assert inputs.predicting is not None
            texts = inputs.predicting[0].cpu().numpy()
            losses[indices] = np.bincount(texts, each.double().cpu().numpy(), len(indices))
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
) -> tuple[Tensor, ModelInputs]:
    """Logits [predicted, vocabulary] that predict the target tokens of these examples, and the
    inputs that they were computed from, on the model's device.
    """
    lm, everywhere = model.backbone.lm, not model.optimisations.logits
    inputs = _model_inputs(lm, data, indices, is_decoder, everywhere).to(model.backbone.device)
    with model.reading(data, indices):
        return _logits(lm, inputs), inputs


def _summed_loss(model: TunedModel, logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy summed over target tokens, a scalar tensor []. `logits`: [predicted,
    vocabulary], `targets`: [predicted].
    """
    return cross_entropy(
        *(at_least_fp32(logits), targets),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=model.configuration.training.label_smoothing,
    )


def _model_inputs(
    lm: Any, data: Encoded, indices: Indices, is_decoder: bool, everywhere: bool = False
) -> ModelInputs:
    """Inputs of the language model and target token ids, on the host. `everywhere`: every token has
    a target, IGNORED where there is none.
    """
    data, indices = data.read(indices)
    read, targets = _continued(data, indices) if is_decoder else _decoded(lm, data, indices)
    wanted = torch.ones_like(targets, dtype=torch.bool) if everywhere else targets != IGNORED
    places = wanted.nonzero().T.contiguous()
    return ModelInputs(read, data.pad_id, targets[wanted], places)


def _decoded(lm: Any, data: Encoded, indices: Indices) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs of an encoder-decoder, and the target that each token of its decoder predicts, [batch,
    tokens].
    """
    assert data.written is not None
    ids, mask = data.written.padded(indices, data.pad_id)
    if not ids.shape[1]:  # targets without a token, of a model without an end of text
        ids, mask = ids.new_full((len(ids), 1), data.pad_id), mask.new_zeros(len(mask), 1)
    targets = ids.masked_fill(~mask, IGNORED)
    follows = {"decoder_input_ids": decoder_inputs(lm, targets, data.pad_id)}
    return {**data.batch(indices), **follows}, targets


def _continued(data: Encoded, indices: Indices) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs of a decoder, prompt and response as one text, and the token of the response that each
    token but the last predicts, [batch, tokens − 1].
    """
    assert data.written is not None
    ids, mask, is_response = prompts_with_responses(data.inputs, data.written, indices, data.pad_id)
    targets = ids.masked_fill(~is_response, IGNORED)[:, 1:]
    return {"input_ids": ids, "attention_mask": mask.long()}, targets


def _logits(lm: Any, inputs: ModelInputs) -> Tensor:
    """Logits [predicted, vocabulary] that predict `inputs.targets` [predicted]."""
    assert inputs.predicting is not None
    with _cut_to(inputs.predicting, lm.get_output_embeddings()):
        logits: Tensor = lm(**inputs.tensors, use_cache=False).logits
    return logits[0]


@contextmanager
def _cut_to(places: Tensor, head: nn.Module) -> Iterator[None]:
    """Context in which the head of a language model reads the states of tokens at `places`, text
    and token [2, predicted], as one text: [1, predicted, d] in place of [texts, tokens, d].

    What the families do with logits afterwards (a bias, a factor, a soft cap) is done to each.
    """

    def cut(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (states,) = args
        rows = places[0] * states.shape[1] + places[1]
        return (states.flatten(0, 1).index_select(0, rows)[None],)

    handle = head.register_forward_pre_hook(cut)
    try:
        yield
    finally:
        handle.remove()


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
