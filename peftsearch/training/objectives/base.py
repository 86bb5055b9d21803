"""What an objective is: the loss of examples, and what a model predicts of them.

The loss of a step is a sum over its examples divided by their whole weight, so that it does not
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
from peftsearch.training.objectives.batch import Given
from peftsearch.training.optimisations import Optimisations

__all__ = ["Evaluation", "Objective", "at_least_fp32", "read_batches", "without_gradients"]

Indices = NDArray[np.int64]

_FEW = 32
"""Examples a batch of an evaluation without the optimisation for large ones."""


@dataclass(frozen=True)
class Evaluation:
    """n examples in their order: `predicted` (label indices, logits (n, labels) of sets of labels,
    numbers or texts; None if only losses were asked for), `losses` each summed over the example's
    `weights`: 1, or the tokens of its target. Losses are of all n examples, or where texts were
    written of the first few.
    """

    predicted: NDArray[np.int64] | NDArray[np.float64] | Sequence[str] | None
    losses: NDArray[np.float64]
    weights: NDArray[np.int64]

    @property
    def examples(self) -> int:
        return len(self.losses) if self.predicted is None else len(self.predicted)

    @property
    def loss(self) -> float:
        """The mean; of texts in nats a token."""
        return float(self.losses.sum() / max(int(self.weights.sum()), 1))

    def pair(self, metric: Metric, targets: Any) -> tuple[Any, Any]:
        """What a metric compares: references (of the examples evaluated) and predictions."""
        if metric.of == "loss":
            return self.weights, self.losses
        return targets[: self.examples], self.predicted


class Objective(ABC):
    """A loss over examples, and predictions."""

    outputs: int = 0
    """Width of the trained head; 0 without one."""
    begins_at: float | None = None
    """The loss of a model that knows nothing; None: the loss of the first step."""
    limit: float
    """A smoothed loss above it never came back in our runs; `limit_is` says in words what it is."""
    limit_is: str = "4 times a constant predictor's"

    def reads(self, data: Encoded) -> Encoded:
        """What the backbone's first stack reads of a data set."""
        return data

    @abstractmethod
    def weight(self, data: Encoded, indices: Indices) -> int:
        """What the loss of these examples is divided by."""

    @abstractmethod
    def loss(self, model: TunedModel, data: Encoded, indices: Indices) -> Tensor:
        """The loss summed over examples, a scalar to differentiate."""

    # -- the same in a batch with others' examples (cohort.py) --------------------------------

    @abstractmethod
    def given(self, model: TunedModel, data: Encoded, indices: Indices) -> Given:
        """What the backbone reads for these examples, and what is wanted; still on the host."""

    @abstractmethod
    def run(self, backbone: Backbone, given: Given) -> Tensor:
        """What it gives, (texts, tokens, …)."""

    @abstractmethod
    def loss_of(self, model: TunedModel, outputs: Tensor, given: Given) -> Tensor:
        """`loss` from what the backbone gave for these texts: a function of tensors alone, which
        can be recorded.
        """

    # -- evaluation ----------------------------------------------------------------------------

    @abstractmethod
    def evaluate(self, model: TunedModel, data: Encoded, predict: bool = True) -> Evaluation:
        """Losses, and with `predict` predictions, of all examples of a data set."""


def at_least_fp32(outputs: Tensor) -> Tensor:
    """A loss is computed in fp32 where the model is in half precision."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


@contextmanager
def without_gradients(optimisations: Optimisations) -> Iterator[None]:
    """Evaluation: in inference mode, or as it is done without that optimisation."""
    with torch.inference_mode() if optimisations.inference else torch.no_grad():
        yield


def read_batches(lengths: Indices, model: TunedModel) -> list[Indices]:
    """Batches of an evaluation: large ones sorted by length, or small ones as examples come.

    `lengths`: tokens of each example; what the configuration adds to them counts as well.
    """
    if model.optimisations.inference:
        room = model.positions.without_gradients(lengths)
        return evaluation_batches(room, evaluation_tokens(model.backbone.device))
    return [np.arange(i, min(i + _FEW, len(lengths))) for i in range(0, len(lengths), _FEW)]
