"""The interface of an objective: the loss of examples, and a model's predictions for them.

The loss of a step is a sum over its examples divided by their total weight, so that it does not
depend on the pieces in which it is computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone
from peftsearch.task.metrics.base import Metric
from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.batches import evaluation_batches, evaluation_tokens
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.model_inputs import ModelInputs
from peftsearch.training.optimisations import Optimisations

__all__ = ["Evaluation", "Objective", "at_least_fp32", "read_batches", "without_gradients"]

Indices = NDArray[np.int64]

_FEW = 32
"""Examples a batch of an evaluation without the optimisation `inference`."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions and losses of n examples, in their order."""

    predicted: NDArray[np.int64] | NDArray[np.float64] | Sequence[str] | None
    """Label indices [n], logits of sets of labels [n, labels], numbers [n] or n texts; None if only
    losses were requested.
    """
    losses: NDArray[np.float64]
    """[n], or [fewer] where texts were written; each is a sum over the example's weight."""
    weights: NDArray[np.int64]
    """1 for each of `losses`, or the number of the example's target tokens."""

    @property
    def examples(self) -> int:
        """Number of examples that were evaluated."""
        return len(self.losses) if self.predicted is None else len(self.predicted)

    @property
    def loss(self) -> float:
        """Mean loss an example, or of texts a target token, in nats."""
        return float(self.losses.sum() / max(int(self.weights.sum()), 1))

    def pair(self, metric: Metric, targets: Any) -> tuple[Any, Any]:
        """The arguments of a metric: references of the evaluated examples, and predictions."""
        if metric.of == "loss":
            return self.weights, self.losses
        return targets[: self.examples], self.predicted


class Objective(ABC):
    """A loss over examples, and predictions for them."""

    outputs: int = 0
    """Width of the trained head; 0 without one."""
    initial_loss: float | None = None
    """The loss of constant predictions; None: the loss of the first step stands in for it."""
    max_loss: float
    """A smoothed loss above it never came back in our runs."""
    max_loss_meaning: str = "4 times a constant predictor's"
    """`max_loss` in words, for the message of a run that diverged."""

    def first_stack_inputs(self, data: Encoded) -> Encoded:
        """The data as the backbone's first stack reads it; cached states are those of this data."""
        return data

    @abstractmethod
    def weight(self, data: Encoded, indices: Indices) -> int:
        """The divisor of these examples' summed loss: their number, or their target tokens."""

    @abstractmethod
    def loss(self, model: TunedModel, data: Encoded, indices: Indices) -> Tensor:
        """The loss summed over examples: a scalar tensor [] to differentiate."""

    # -- the same in three parts, for batches of several configurations (cohort.py) -----------

    @abstractmethod
    def model_inputs(self, model: TunedModel, data: Encoded, indices: Indices) -> ModelInputs:
        """Inputs of the backbone and targets of these examples, on the host."""

    @abstractmethod
    def forward(self, backbone: Backbone, inputs: ModelInputs) -> Tensor:
        """The backbone's outputs: last states [texts, tokens, hidden] where there is a head, else
        logits [predicted tokens, vocabulary].
        """

    @abstractmethod
    def loss_of_outputs(self, model: TunedModel, outputs: Tensor, inputs: ModelInputs) -> Tensor:
        """`loss`, a scalar tensor [], from the outputs of `forward`, or from states of one token a
        text [texts, 1, hidden]: a function of tensors alone, which can be recorded.
        """

    # -- evaluation ----------------------------------------------------------------------------

    @abstractmethod
    def evaluate(self, model: TunedModel, data: Encoded, predict: bool = True) -> Evaluation:
        """Losses, and with `predict` predictions, of all examples of a data set.

        Calls `model.before_batch`, which may raise, before every batch.
        """


def at_least_fp32(outputs: Tensor) -> Tensor:
    """The same tensor in fp32 if it is in half precision: losses are computed in fp32 then."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


@contextmanager
def without_gradients(optimisations: Optimisations) -> Iterator[None]:
    """Inference mode, or `no_grad` without the optimisation `inference`."""
    with torch.inference_mode() if optimisations.inference else torch.no_grad():
        yield


def read_batches(lengths: Indices, model: TunedModel) -> list[Indices]:
    """Batches of an evaluation, as index arrays: large and sorted by length, or without the
    optimisation `inference` small and in the examples' order.

    `lengths` [n]: tokens of each example; positions that the configuration adds count as well.
    """
    if model.optimisations.inference:
        room = model.positions.effective_lengths(lengths)
        return evaluation_batches(room, evaluation_tokens(model.backbone.device))
    return [np.arange(i, min(i + _FEW, len(lengths))) for i in range(0, len(lengths), _FEW)]
