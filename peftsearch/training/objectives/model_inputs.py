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

__all__ = ["IGNORED", "ModelInputs"]

IGNORED = -100
"""Marks tokens that are not predicted, prompts and padding, and texts without a label; where
numbers are targets it is NaN.
"""


@dataclass(frozen=True)
class ModelInputs:
    """Tensors (texts, tokens) by the names that the model gives them; `pad_id` pads token ids.

    `targets` is what outputs are compared with: a label or a number a text, (texts,), a number for
    each label of a text, (texts, labels), or where texts are written (texts, tokens) the token
    wanted at each place from place `first_target` on, before which no logits are needed.
    """

    tensors: Mapping[str, Tensor]
    pad_id: int
    targets: Tensor
    first_target: int = 0

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def values(self) -> list[Tensor]:
        """Everything that differs from batch to batch, in a fixed order."""
        return [*self.tensors.values(), self.targets]

    def without_targets(self, texts: NDArray[np.bool_]) -> ModelInputs:
        """Nothing is wanted of some texts, which then add nothing to loss or gradients."""
        targets = self.targets.clone()
        targets[torch.from_numpy(texts)] = float("nan") if targets.is_floating_point() else IGNORED
        return replace(self, targets=targets)

    def map(self, change: Callable[[Tensor], Tensor]) -> ModelInputs:
        """The same of changed tensors."""
        tensors = {key: change(value) for key, value in self.tensors.items()}
        return replace(self, tensors=tensors, targets=change(self.targets))

    def to(self, device: torch.device | str) -> ModelInputs:
        return self.map(lambda value: sent(value, device))

    def split(self, counts: Sequence[int]) -> list[ModelInputs]:
        """The texts again of each that was joined."""
        tensors = {key: value.split(list(counts)) for key, value in self.tensors.items()}
        return [
            replace(self, tensors={key: own[i] for key, own in tensors.items()}, targets=targets)
            for i, targets in enumerate(self.targets.split(list(counts)))
        ]

    @classmethod
    def concatenated(
        cls, parts: Sequence[ModelInputs], multiple: int = 1, limit: int = 1 << 30
    ) -> ModelInputs:
        """The texts of all, in their order, as long as the longest: rounded up to a multiple of so
        many tokens, but not beyond `limit`, which is what the model can read.
        """
        tensors = {key: _concatenated(key, parts, multiple, limit) for key in parts[0].tensors}
        first_target = min(part.first_target for part in parts) // multiple * multiple
        return cls(tensors, parts[0].pad_id, _targets(parts, tensors, first_target), first_target)


def _concatenated(key: str, parts: Sequence[ModelInputs], multiple: int, limit: int) -> Tensor:
    values = [part.tensors[key] for part in parts]
    longest = max(value.shape[1] for value in values)
    width = max(longest, min(-(-longest // multiple) * multiple, limit))
    pad_id = parts[0].pad_id if key.endswith("input_ids") else 0
    return torch.cat([pad(value, (0, width - value.shape[1]), value=pad_id) for value in values])


def _targets(
    parts: Sequence[ModelInputs], tensors: Mapping[str, Tensor], first_target: int
) -> Tensor:
    """Targets of all; of texts from token `first_target` to the end of the padded inputs."""
    if parts[0].targets.ndim == 1 or parts[0].targets.is_floating_point():
        return torch.cat([part.targets for part in parts])
    key = "decoder_input_ids" if "decoder_input_ids" in tensors else "input_ids"

    def placed(part: ModelInputs) -> Tensor:
        longer = tensors[key].shape[1] - part.tensors[key].shape[1]
        return pad(part.targets, (part.first_target - first_target, longer), value=IGNORED)

    return torch.cat([placed(part) for part in parts])
