"""The next examples of several runs as one batch: what the host puts together for a pass."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone
from peftsearch.task.tokens.transfer import sent
from peftsearch.training.loop import TrainingRun
from peftsearch.training.objectives.model_inputs import ModelInputs

__all__ = ["JointBatch"]

Indices = NDArray[np.int64]

_MULTIPLE = {"cuda": 16}
"""A recorded pass serves one length and one number of texts. So on a device where passes are
recorded lengths are rounded up to a multiple of so many tokens, and smaller batches filled up to
whole ones; whether any is recorded or not, so that what is computed depends on no measurement.
"""


@dataclass(frozen=True)
class JointBatch:
    """One pass: how many texts are each run's, all texts, and what each run's summed loss is
    divided by, (runs,).
    """

    counts: tuple[int, ...]
    tokens: tuple[int, ...]
    """Of each run's texts, padded to its own longest: its share of what the pass costs."""
    inputs: ModelInputs
    weights: Tensor

    @classmethod
    def next_of(cls, runs: Sequence[TrainingRun], backbone: Backbone) -> JointBatch:
        """The next piece of each, on the host."""
        multiple = _MULTIPLE.get(backbone.device.type, 1)
        pieces = [run.next_piece() for run in runs]
        missing = [
            _missing(run, piece) if multiple > 1 else 0
            for run, piece in zip(runs, pieces, strict=True)
        ]
        return cls(
            counts=tuple(len(piece) + more for piece, more in zip(pieces, missing, strict=True)),
            tokens=tuple(_tokens(run, piece) for run, piece in zip(runs, pieces, strict=True)),
            inputs=ModelInputs.concatenated(
                _parts(runs, pieces, missing), multiple, backbone.max_length
            ),
            weights=torch.tensor([run.weight for run in runs]),
        )

    def to(self, device: torch.device) -> JointBatch:
        """The same on the device; nobody waits for it."""
        return JointBatch(
            self.counts, self.tokens, self.inputs.to(device), sent(self.weights, device)
        )

    @property
    def key(self) -> Hashable:
        """Equal for passes that differ in the values of tensors alone."""
        shapes = ((value.shape, value.dtype) for value in self.inputs.values)
        return self.counts, self.inputs.first_target, tuple(self.inputs.tensors), tuple(shapes)

    def cloned(self) -> JointBatch:
        """Buffers of their own with the same values."""
        inputs = self.inputs.map(torch.clone)
        return JointBatch(self.counts, self.tokens, inputs, self.weights.clone())

    def copy_from(self, other: JointBatch) -> None:
        """The values of another one with the same key, into these buffers."""
        torch._foreach_copy_(
            [*self.inputs.values, self.weights], [*other.inputs.values, other.weights]
        )


def _parts(
    runs: Sequence[TrainingRun], pieces: Sequence[Indices], missing: Sequence[int]
) -> list[ModelInputs]:
    """The texts of all in their order, those of neighbours with the same data at once; a piece is
    filled up with its last text, of which then nothing is wanted.
    """
    parts = []
    for _, several in groupby(range(len(runs)), lambda index: id(runs[index].train_set)):
        own = list(several)
        filled = [np.append(pieces[i], np.repeat(pieces[i][-1:], missing[i])) for i in own]
        ignored = np.concatenate(
            [np.arange(len(f)) >= len(pieces[i]) for i, f in zip(own, filled, strict=True)]
        )
        run = runs[own[0]]
        inputs = run.objective.model_inputs(run.model, run.train_set, np.concatenate(filled))
        parts.append(inputs.without_targets(ignored) if ignored.any() else inputs)
    return parts


def _tokens(run: TrainingRun, piece: Indices) -> int:
    return len(piece) * int(run.order.lengths[piece].max())


def _missing(run: TrainingRun, piece: Indices) -> int:
    """Texts that a piece of a whole batch has more; 0 where batches are of so many tokens."""
    if run.training.batch_tokens:
        return 0
    batch = min(run.training.batch_size, len(run.train_set))
    return max(0, -(-batch // run.training.accumulation) - len(piece))
