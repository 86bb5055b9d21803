"""Model inputs: the tensors of one forward, with targets; of one configuration or of several.

Texts are padded at their end, to the longest of the batch or beyond: a longer padding changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from peftsearch.task.tokens.transfer import to_device

__all__ = ["IGNORED", "ModelInputs"]

IGNORED = -100
"""The target of what fills a batch up, texts or tokens; among floating-point targets it is NaN."""


@dataclass(frozen=True)
class ModelInputs:
    """Inputs and targets of some texts."""

    tensors: Mapping[str, Tensor]
    """Tensors [texts, tokens] by the names of the model's arguments; token ids and masks int64."""
    pad_id: int
    """Pads token ids."""
    targets: Tensor
    """Labels [texts] int64, numbers [texts], sets of labels [texts, labels] as 0.0 and 1.0, or
    where texts are written token ids [predicted] int64, text by text.
    """
    predicting: Tensor | None = None
    """Where texts are written: text and token whose logits predict each target, [2, predicted]
    int64; no others are computed. None where a head reads each text.
    """
    shares: tuple[int, ...] = ()
    """Targets of each configuration, if `shared_among` several that write texts."""

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    @property
    def values(self) -> list[Tensor]:
        """All tensors, in a fixed order."""
        own = [*self.tensors.values(), self.targets]
        return own if self.predicting is None else [*own, self.predicting]

    def without_targets(self, texts: NDArray[np.bool_]) -> ModelInputs:
        """A copy in which some texts, `texts` [texts] bool, add nothing to loss or gradients."""
        if self.predicting is not None:
            kept = ~torch.from_numpy(texts)[self.predicting[0]]
            where = self.predicting[:, kept]
            return replace(self, targets=self.targets[kept], predicting=where)
        targets = self.targets.clone()
        targets[torch.from_numpy(texts)] = float("nan") if targets.is_floating_point() else IGNORED
        return replace(self, targets=targets)

    def map(self, change: Callable[[Tensor], Tensor]) -> ModelInputs:
        """A copy with `change` applied to every tensor."""
        tensors = {key: change(value) for key, value in self.tensors.items()}
        where = None if self.predicting is None else change(self.predicting)
        return replace(self, tensors=tensors, targets=change(self.targets), predicting=where)

    def to(self, device: torch.device | str) -> ModelInputs:
        """A copy on the device; the host does not wait for the transfer."""
        return self.map(lambda value: to_device(value, device))

    def split(self, counts: Sequence[int]) -> list[ModelInputs]:
        """The inverse of `concatenated`: `counts` texts each, padded as they are, with targets but
        without `predicting`, which is of the whole batch.
        """
        tensors = {key: value.split(list(counts)) for key, value in self.tensors.items()}
        targets = self.targets.split(self.outputs(counts))
        return [
            ModelInputs({key: own[i] for key, own in tensors.items()}, self.pad_id, targets[i])
            for i in range(len(counts))
        ]

    def outputs(self, counts: Sequence[int]) -> list[int]:
        """Rows of the outputs of each configuration, of `counts` texts: its targets, or its texts
        where a head reads them.
        """
        return list(counts if self.predicting is None else self.shares)

    def shared_among(self, counts: Sequence[int], multiple: int = 1) -> ModelInputs:
        """A copy for configurations of `counts` texts each, in order, with their shares of the
        targets. With a `multiple` above 1 all have the same number a text, a multiple of it, so
        that few shapes occur: the first token of a configuration, IGNORED, fills it up.
        """
        if self.predicting is None:
            return self
        ends = np.searchsorted(self.predicting[0].numpy(), np.cumsum(counts))
        shares = np.diff(ends, prepend=0).tolist()
        if multiple == 1:
            return replace(self, shares=tuple(shares))
        mean = max(-(-own // count) for own, count in zip(shares, counts, strict=True))
        most = self.tensors.get("decoder_input_ids", self.tensors["input_ids"]).shape[1]
        each = min(-(-mean // multiple) * multiple, most)
        own = self.targets.split(shares), self.predicting.split(shares, dim=1)
        filled = [count * each for count in counts]
        firsts = np.cumsum([0, *counts[:-1]]).tolist()
        targets, places = zip(*map(_filled, *own, filled, firsts), strict=True)
        return replace(
            self,
            targets=torch.cat(targets),
            predicting=torch.cat(places, dim=1),
            shares=tuple(filled),
        )

    @classmethod
    def concatenated(
        cls, parts: Sequence[ModelInputs], multiple: int = 1, limit: int = 1 << 30
    ) -> ModelInputs:
        """The texts of all parts, in order, padded to the longest one: rounded up to a multiple of
        `multiple` tokens, but not beyond `limit`, the most that the model reads.
        """
        tensors = {key: _concatenated(key, parts, multiple, limit) for key in parts[0].tensors}
        targets = torch.cat([part.targets for part in parts])
        return cls(tensors, parts[0].pad_id, targets, _places(parts))


def _filled(targets: Tensor, places: Tensor, length: int, text: int) -> tuple[Tensor, Tensor]:
    """Targets [length] and places [2, length] that begin with those given, [fewer] and [2, fewer];
    the rest is IGNORED, at the first token of `text`.
    """
    missing = length - len(targets)
    more = torch.tensor([[text], [0]]).expand(2, missing)
    return pad(targets, (0, missing), value=IGNORED), torch.cat((places, more), dim=1)


def _concatenated(key: str, parts: Sequence[ModelInputs], multiple: int, limit: int) -> Tensor:
    """One tensor [texts, tokens] of all parts."""
    values = [part.tensors[key] for part in parts]
    longest = max(value.shape[1] for value in values)
    width = max(longest, min(-(-longest // multiple) * multiple, limit))
    pad_id = parts[0].pad_id if key.endswith("input_ids") else 0
    return torch.cat([pad(value, (0, width - value.shape[1]), value=pad_id) for value in values])


def _places(parts: Sequence[ModelInputs]) -> Tensor | None:
    """`predicting` of all parts, whose texts follow one another."""
    first, places = 0, []
    for part in parts:
        if part.predicting is None:
            return None
        places.append(part.predicting + torch.tensor([[first], [0]]))
        first += len(part)
    return torch.cat(places, dim=1)
