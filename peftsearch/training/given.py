"""What the backbone reads for some examples, and how those of several configurations are one batch.

Texts are padded at their end, to the longest of the batch: a longer padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, cat
from torch.nn.functional import pad

__all__ = ["Given"]


@dataclass(frozen=True)
class Given:
    """Tensors (texts, tokens) by the names that the model gives them; `fill` pads token ids.

    Where texts are written, `wanted` (texts, tokens) is the token wanted at each place from place
    `first` on, before which no logits are needed.
    """

    tensors: Mapping[str, Tensor]
    fill: int
    wanted: Tensor | None = None
    first: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    @property
    def tokens(self) -> int:
        """Padded tokens that are read."""
        return int(self.tensors["input_ids"].numel())

    def own(self, outputs: Tensor, first: int) -> Tensor:
        """These texts' part of outputs (texts, tokens, …) that begin at place `first` and go on to
        the end of a longer padding.
        """
        like = self.tensors["input_ids"] if self.wanted is None else self.wanted
        begins = self.first - first
        return outputs[:, begins : begins + like.shape[1]]

    @classmethod
    def joined(cls, parts: Sequence[Given]) -> Given:
        """The texts of all, in their order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            tensors={key: _joined(key, parts) for key in parts[0].tensors},
            fill=parts[0].fill,
            first=min(part.first for part in parts),
        )


def _joined(key: str, parts: Sequence[Given]) -> Tensor:
    values = [part.tensors[key] for part in parts]
    longest = max(value.shape[1] for value in values)
    fill = parts[0].fill if key.endswith("input_ids") else 0
    return cat([pad(value, (0, longest - value.shape[1]), value=fill) for value in values])
