"""Replaced biases as additions: h + (b − b₀) is a module's output with b in place of b₀.

The module then runs once for all members' rows, instead of once for each member with a bias of its
own.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

__all__ = ["AddedBias", "can_add"]

_ADD = (nn.Linear, Conv1D, nn.LayerNorm)
"""Modules that add their bias to their output, as the last operation."""


def can_add(module: nn.Module, replaced: Collection[str]) -> bool:
    """Whether replacing the named parameters amounts to adding a term to the module's output.

    Not in half precision, which would round once more: to 8 or 11 bits.
    """
    if not isinstance(module, _ADD) or list(replaced) != ["bias"]:
        return False
    return module.bias is not None and module.bias.dtype in (torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class AddedBias:
    """A hook after a module, which still has its own bias b₀, for a member with another one."""

    frozen: Tensor
    """b₀ [channels]."""
    own: Mapping[str, Tensor]
    """The member's tensors in place of the module's parameters, by name."""
    kind: ClassVar[Hashable] = "added bias"
    width: ClassVar[int] = 0
    reads_module: ClassVar[bool] = False

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """h [..., channels] with b [channels] in place of b₀."""
        return output + (self.own["bias"] - self.frozen)

    @classmethod
    def together(cls, hooks: Sequence[AddedBias], source: object, h: Tensor) -> Tensor:
        """h [rows, ..., channels] of all members' rows, equally many of each."""
        more = torch.stack([hook.own["bias"] for hook in hooks]) - hooks[0].frozen
        return (h.reshape(len(hooks), -1, h.shape[-1]) + more.unsqueeze(1)).view_as(h)
