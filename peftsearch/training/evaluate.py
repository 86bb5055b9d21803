"""Evaluation in inference mode, on large batches sorted by length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from peftsearch.task.encode import Encoded
from peftsearch.training.batches import evaluation_batches
from peftsearch.training.model import TunedModel

__all__ = ["Evaluation", "evaluate"]

_TOKENS = 4096
"""Padded tokens a batch."""


@dataclass(frozen=True)
class Evaluation:
    """n examples in their order: `predicted` and `labels` (n,), and the mean loss in nats."""

    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]
    loss: float

    @property
    def examples(self) -> int:
        return len(self.labels)


@torch.inference_mode()
def logits_of(model: TunedModel, data: Encoded, limit: int | None = None) -> torch.Tensor:
    """Logits (n, labels) of the first `limit` examples, in their order."""
    count = len(data) if limit is None else min(limit, len(data))
    batches = evaluation_batches(data.lengths[:count], _TOKENS)
    outputs = [model(**data.batch(indices, model.backbone.device)[0]) for indices in batches]
    order = torch.from_numpy(np.argsort(np.concatenate(batches)))
    return torch.cat(outputs).float().cpu()[order]


def evaluate(model: TunedModel, data: Encoded, limit: int | None = None) -> Evaluation:
    """Predict the first `limit` examples of an evaluation set."""
    logits = logits_of(model, data, limit)
    labels = torch.as_tensor(data.labels[: len(logits)], dtype=torch.int64)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    return Evaluation(logits.argmax(-1).numpy(), labels.numpy(), float(loss))
