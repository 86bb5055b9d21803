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
"""The target of tokens that are not predicted (prompts, padding), and of texts that fill a batch
up; among floating-point targets it is NaN.
"""


@dataclass(frozen=True)
class ModelInputs:
    """Inputs and targets of some texts."""

    tensors: Mapping[str, Tensor]
    """Tensors [texts, tokens] by the names of the model's arguments; token ids and masks int64."""
    pad_id: int
    """Pads token ids."""
    targets: Tensor
    """Labels [texts] int64, numbers [texts], sets of labels [texts, labels] as 0.0 and 1.0, or
    where texts are written token ids [texts, tokens] int64.
    """
    first_target: int = 0
    """The first token whose logits are needed: `targets[:, 0]` is what they predict."""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def values(self) -> list[Tensor]:
        """All tensors, in a fixed order."""
        return [*self.tensors.values(), self.targets]

    def without_targets(self, texts: NDArray[np.bool_]) -> ModelInputs:
        """A copy in which some texts, `texts` [texts] bool, add nothing to loss or gradients."""
        targets = self.targets.clone()
        targets[torch.from_numpy(texts)] = float("nan") if targets.is_floating_point() else IGNORED
        return replace(self, targets=targets)

    def map(self, change: Callable[[Tensor], Tensor]) -> ModelInputs:
        """A copy with `change` applied to every tensor."""
        tensors = {key: change(value) for key, value in self.tensors.items()}
        return replace(self, tensors=tensors, targets=change(self.targets))

    def to(self, device: torch.device | str) -> ModelInputs:
        """A copy on the device; the host does not wait for the transfer."""
        return self.map(lambda value: to_device(value, device))

    def split(self, counts: Sequence[int]) -> list[ModelInputs]:
        """The inverse of `concatenated`: `counts` texts each, padded as they are."""
        tensors = {key: value.split(list(counts)) for key, value in self.tensors.items()}
        return [
            replace(self, tensors={key: own[i] for key, own in tensors.items()}, targets=targets)
            for i, targets in enumerate(self.targets.split(list(counts)))
        ]

    @classmethod
    def concatenated(
        cls, parts: Sequence[ModelInputs], multiple: int = 1, limit: int = 1 << 30
    ) -> ModelInputs:
        """The texts of all parts, in order, padded to the longest one: rounded up to a multiple of
        `multiple` tokens, but not beyond `limit`, the most that the model reads.
        """
        tensors = {key: _concatenated(key, parts, multiple, limit) for key in parts[0].tensors}
        first_target = min(part.first_target for part in parts) // multiple * multiple
        return cls(tensors, parts[0].pad_id, _targets(parts, tensors, first_target), first_target)


def _concatenated(key: str, parts: Sequence[ModelInputs], multiple: int, limit: int) -> Tensor:
    """One tensor [texts, tokens] of all parts."""
    values = [part.tensors[key] for part in parts]
    longest = max(value.shape[1] for value in values)
    width = max(longest, min(-(-longest // multiple) * multiple, limit))
    pad_id = parts[0].pad_id if key.endswith("input_ids") else 0
    return torch.cat([pad(value, (0, width - value.shape[1]), value=pad_id) for value in values])


def _targets(
    parts: Sequence[ModelInputs], tensors: Mapping[str, Tensor], first_target: int
) -> Tensor:
    """Targets of all parts; token ids from `first_target` to the end of the padded inputs."""
    if parts[0].targets.ndim == 1 or parts[0].targets.is_floating_point():
        return torch.cat([part.targets for part in parts])
    key = "decoder_input_ids" if "decoder_input_ids" in tensors else "input_ids"

    def padded(part: ModelInputs) -> Tensor:
        longer = tensors[key].shape[1] - part.tensors[key].shape[1]
        return pad(part.targets, (part.first_target - first_target, longer), value=IGNORED)

    return torch.cat([padded(part) for part in parts])
