"""Joint batch: the next examples of several runs, put together on the host for one pass."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone
from peftsearch.task.tokens.transfer import to_device
from peftsearch.training.loop import TrainingRun
from peftsearch.training.objectives.model_inputs import ModelInputs

__all__ = ["JointBatch"]

Indices = NDArray[np.int64]

_MULTIPLE = {"cuda": 16}
"""Tokens that lengths are rounded up to a multiple of, by device. A CUDA graph serves one length
and one number of texts; rounding, and filling up an epoch's last batch, make few kinds of passes.
Both happen whether passes are recorded or not, so that results depend on no measurement.
"""


@dataclass(frozen=True)
class JointBatch:
    """The inputs of one pass, texts of all runs in the order of the runs."""

    counts: tuple[int, ...]
    """Texts of each run."""
    tokens: tuple[int, ...]
    """Tokens of each run, padded to its own longest text: its share of the cost of the pass."""
    inputs: ModelInputs
    """Tensors [texts, tokens] of all runs."""
    weights: Tensor
    """[runs] int64: the divisor of each run's summed loss."""

    @classmethod
    def next_of(cls, runs: Sequence[TrainingRun], backbone: Backbone) -> JointBatch:
        """The next piece of every run, on the host."""
        multiple = _MULTIPLE.get(backbone.device.type, 1)
        pieces = [run.next_piece() for run in runs]
        missing = [
            _missing(run, piece) if multiple > 1 else 0
            for run, piece in zip(runs, pieces, strict=True)
        ]
        counts = tuple(len(piece) + more for piece, more in zip(pieces, missing, strict=True))
        return cls(
            counts=counts,
            tokens=tuple(_tokens(run, piece) for run, piece in zip(runs, pieces, strict=True)),
            inputs=ModelInputs.concatenated(
                _parts(runs, pieces, missing), multiple, backbone.max_length
            ).shared_among(counts, multiple),
            weights=torch.tensor([run.pieces.divisor for run in runs]),
        )

    def to(self, device: torch.device) -> JointBatch:
        """A copy on the device; the host does not wait for the transfer."""
        return JointBatch(
            self.counts, self.tokens, self.inputs.to(device), to_device(self.weights, device)
        )

    @property
    def key(self) -> Hashable:
        """Equal for batches that differ only in the values of their tensors."""
        shapes = ((value.shape, value.dtype) for value in self.inputs.values)
        return self.counts, self.inputs.shares, tuple(self.inputs.tensors), tuple(shapes)

    def cloned(self) -> JointBatch:
        """A copy with its own buffers."""
        inputs = self.inputs.map(torch.clone)
        return JointBatch(self.counts, self.tokens, inputs, self.weights.clone())

    def copy_from(self, other: JointBatch) -> None:
        """Copy the values of another batch with the same key into these buffers."""
        # One call for all buffers: a recording is there to save the host's time.
        torch._foreach_copy_(
            [*self.inputs.values, self.weights], [*other.inputs.values, other.weights]
        )


def _parts(
    runs: Sequence[TrainingRun], pieces: Sequence[Indices], missing: Sequence[int]
) -> list[ModelInputs]:
    """Inputs of all pieces in order, encoded at once for neighbouring runs with the same data. A
    piece with `missing` texts is filled up with copies of its last one, without targets.
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
    """Tokens of a piece, padded to its longest text."""
    return len(piece) * int(run.order.lengths[piece].max())


def _missing(run: TrainingRun, piece: Indices) -> int:
    """Texts missing from a piece of a full batch; 0 where batches are sized in tokens."""
    if run.training.batch_tokens:
        return 0
    batch = min(run.training.batch_size, len(run.train_set))
    return max(0, -(-batch // run.training.accumulation) - len(piece))
