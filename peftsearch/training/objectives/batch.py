"""What the backbone reads for some examples, and how those of several configurations are one batch.

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

from peftsearch.task.tokens.transfer import sent

__all__ = ["IGNORED", "Given"]

IGNORED = -100
"""Marks tokens that are not predicted, prompts and padding, and texts without a label; where
numbers are wanted it is NaN.
"""


@dataclass(frozen=True)
class Given:
    """Tensors (texts, tokens) by the names that the model gives them; `fill` pads token ids.

    `wanted` is what outputs are compared with: a label or a number a text, (texts,), a number for
    each label of a text, (texts, labels), or where texts are written (texts, tokens) the token
    wanted at each place from place `first` on, before which no logits are needed.
    """

    tensors: Mapping[str, Tensor]
    fill: int
    wanted: Tensor
    first: int = 0

    def __len__(self) -> int:
        return len(self.wanted)

    @property
    def values(self) -> list[Tensor]:
        """Everything that differs from batch to batch, in a fixed order."""
        return [*self.tensors.values(), self.wanted]

    def ignoring(self, texts: NDArray[np.bool_]) -> Given:
        """Nothing is wanted of some texts, which then add nothing to loss or gradients."""
        wanted = self.wanted.clone()
        wanted[torch.from_numpy(texts)] = float("nan") if wanted.is_floating_point() else IGNORED
        return replace(self, wanted=wanted)

    def each(self, change: Callable[[Tensor], Tensor]) -> Given:
        """The same of changed tensors."""
        tensors = {key: change(value) for key, value in self.tensors.items()}
        return replace(self, tensors=tensors, wanted=change(self.wanted))

    def sent(self, device: torch.device | str) -> Given:
        return self.each(lambda value: sent(value, device))

    def split(self, counts: Sequence[int]) -> list[Given]:
        """The texts again of each that was joined."""
        tensors = {key: value.split(list(counts)) for key, value in self.tensors.items()}
        return [
            replace(self, tensors={key: own[i] for key, own in tensors.items()}, wanted=wanted)
            for i, wanted in enumerate(self.wanted.split(list(counts)))
        ]

    @classmethod
    def joined(cls, parts: Sequence[Given], multiple: int = 1, limit: int = 1 << 30) -> Given:
        """The texts of all, in their order, as long as the longest: rounded up to a multiple of so
        many tokens, but not beyond `limit`, which is what the model can read.
        """
        tensors = {key: _joined(key, parts, multiple, limit) for key in parts[0].tensors}
        first = min(part.first for part in parts) // multiple * multiple
        return cls(tensors, parts[0].fill, _wanted(parts, tensors, first), first)


def _joined(key: str, parts: Sequence[Given], multiple: int, limit: int) -> Tensor:
    values = [part.tensors[key] for part in parts]
    longest = max(value.shape[1] for value in values)
    width = max(longest, min(-(-longest // multiple) * multiple, limit))
    fill = parts[0].fill if key.endswith("input_ids") else 0
    return torch.cat([pad(value, (0, width - value.shape[1]), value=fill) for value in values])


def _wanted(parts: Sequence[Given], tensors: Mapping[str, Tensor], first: int) -> Tensor:
    """What is wanted of all; of texts from place `first` to the end of what is read there."""
    if parts[0].wanted.ndim == 1 or parts[0].wanted.is_floating_point():
        return torch.cat([part.wanted for part in parts])
    key = "decoder_input_ids" if "decoder_input_ids" in tensors else "input_ids"

    def placed(part: Given) -> Tensor:
        longer = tensors[key].shape[1] - part.tensors[key].shape[1]
        return pad(part.wanted, (part.first - first, longer), value=IGNORED)

    return torch.cat([placed(part) for part in parts])
