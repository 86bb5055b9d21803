"""The next examples of several runs as one batch: what the host puts together for a pass."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peftsearch.backbone.load import Backbone
from peftsearch.task.transfer import sent
from peftsearch.training.given import Given
from peftsearch.training.loop import TrainingRun

__all__ = ["Joint"]

_MULTIPLE = {"cuda": 16}
"""A recorded pass serves one length and one number of texts. So on a device where passes are
recorded lengths are rounded up to a multiple of so many tokens, and smaller batches filled up to
whole ones; whether any is recorded or not, so that what is computed depends on no measurement.
"""


@dataclass(frozen=True)
class Joint:
    """One pass: how many texts are each run's, all texts, and what each run's summed loss is
    divided by, (runs,).
    """

    counts: tuple[int, ...]
    tokens: tuple[int, ...]
    """Of each run as it would be padded alone: its share of what the pass costs."""
    given: Given
    weights: Tensor

    @classmethod
    def of(cls, runs: Sequence[TrainingRun], backbone: Backbone) -> Joint:
        """The next piece of each, on the host."""
        multiple = _MULTIPLE.get(backbone.device.type, 1)
        given = [_next(run, is_filled=multiple > 1) for run in runs]
        return cls(
            counts=tuple(map(len, given)),
            tokens=tuple(one.tokens for one in given),
            given=Given.joined(given, multiple, backbone.max_length),
            weights=torch.tensor([run.weight for run in runs]),
        )

    def sent(self, device: torch.device) -> Joint:
        """The same on the device; nobody waits for it."""
        return Joint(self.counts, self.tokens, self.given.sent(device), sent(self.weights, device))

    @property
    def key(self) -> Hashable:
        """Equal for passes that differ in the values of tensors alone."""
        shapes = ((value.shape, value.dtype) for value in self.given.values)
        return self.counts, self.given.first, tuple(self.given.tensors), tuple(shapes)

    def copied(self) -> Joint:
        """Buffers of their own with the same values."""
        given = self.given.each(torch.clone)
        return Joint(self.counts, self.tokens, given, self.weights.clone())

    def take(self, other: Joint) -> None:
        """The values of another one with the same key, into these buffers."""
        torch._foreach_copy_(
            [*self.given.values, self.weights], [*other.given.values, other.weights]
        )


def _next(run: TrainingRun, is_filled: bool) -> Given:
    """A run's next piece; filled up with its last text, of which then nothing is wanted."""
    piece = run.next_piece()
    missing = max(0, _usual(run) - len(piece)) if is_filled else 0
    piece = np.append(piece, np.repeat(piece[-1:], missing))
    given = run.objective.given(run.model, run.train_set, piece)
    return given.ignoring_last(missing) if missing else given


def _usual(run: TrainingRun) -> int:
    """Texts of a piece of a whole batch; 0 where batches are of so many tokens, not texts."""
    if run.training.batch_tokens:
        return 0
    batch = min(run.training.batch_size, len(run.train_set))
    return -(-batch // run.training.accumulation)
