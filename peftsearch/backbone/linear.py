"""One view of every linear layer: nn.Linear, GPT-2's Conv1D, and parts of a fused projection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from peftsearch.backbone.families import Part
from peftsearch.errors import ConfigurationError

__all__ = ["LinearView"]


@dataclass(frozen=True)
class LinearView:
    """h = x W + b, with h all or some of a module's output channels."""

    module: nn.Module
    part: Part
    head_dim: int = 0
    """Needed where heads are fused one by one."""
    kv_heads: int = 0
    """Heads of keys and of values, where a fused layer has fewer of them than of queries."""
    _indices: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def at(cls, layer: nn.Module, part: Part, head_dim: int = 0) -> LinearView:
        """The view, or a ConfigurationError where the path leads to something else."""
        module = layer.get_submodule(part.path)
        if not isinstance(module, (nn.Linear, Conv1D)):
            raise ConfigurationError(f"{part.path} is {type(module).__name__}, not a linear layer")
        if not part.kv_heads:
            return cls(module, part, head_dim)
        attention: Any = layer.get_submodule(part.path.rpartition(".")[0])
        return cls(module, part, attention.head_dim, getattr(attention, part.kv_heads))

    @property
    def _weight(self) -> Tensor:
        """The module's own, or what stands in its place."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight

    @property
    def d_in(self) -> int:
        shape = self._weight.shape
        return shape[0] if isinstance(self.module, Conv1D) else shape[1]

    @property
    def d_module(self) -> int:
        """Output channels of the whole module."""
        shape = self._weight.shape
        return shape[1] if isinstance(self.module, Conv1D) else shape[0]

    @property
    def d_out(self) -> int:
        if not self.kv_heads:
            return self.d_module // self.part.of
        shared = self.kv_heads * self.head_dim
        return shared if self.part.index else self.d_module - 2 * shared

    @property
    def channels(self) -> slice | Tensor:
        """Which of the module's output channels belong to the part; indices are where the weight
        is, so that no forward sends them there.
        """
        if self.part.of == 1:
            return slice(None)
        if not self.part.per_head:
            return self._stretch()
        device = self._weight.device
        if device not in self._indices:
            with torch.inference_mode(False):  # made in an evaluation, used in training too
                self._indices[device] = self._head_by_head(_index_device(device))
        return self._indices[device]

    def _stretch(self) -> slice:
        """All queries, all keys and all values lie one after another, the last one at the end."""
        behind = self.part.of - 1 - self.part.index
        stop = self.d_module - behind * (self.kv_heads * self.head_dim or self.d_out)
        return slice(stop - self.d_out, stop)

    def _head_by_head(self, device: torch.device) -> Tensor:
        """Each group has its queries (one, without groups), its key and its value side by side."""
        groups = self.kv_heads or self.d_module // (self.part.of * self.head_dim)
        every = torch.arange(self.d_module, device=device).view(groups, -1, self.head_dim)
        own = every[:, :-2] if self.part.index == 0 else every[:, self.part.index - 3]
        return own.flatten()

    def weight(self) -> Tensor:
        """W, (d_in, d_out); frozen."""
        weight = self._weight.detach()
        return (weight if isinstance(self.module, Conv1D) else weight.T)[:, self.channels]

    def bias(self) -> Tensor | None:
        """b (d_out,): the module's own, or what is tuned in its place."""
        bias = getattr(self.module, "bias", None)
        return None if bias is None else bias[self.channels]

    def read(self, output: Tensor) -> Tensor:
        """The part's h in the module's output."""
        return output if self.part.of == 1 else output[..., self.channels]

    def written(self, output: Tensor, h: Tensor) -> Tensor:
        """The module's output with the part's h replaced."""
        if self.part.of == 1:
            return h
        changed = output.clone()
        changed[..., self.channels] = h
        return changed


def _index_device(device: torch.device) -> torch.device:
    """Of a model without weights, which is measured only, indices are real all the same."""
    return torch.device("cpu") if device.type == "meta" else device
