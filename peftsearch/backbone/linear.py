"""A common interface to linear layers: nn.Linear, GPT-2's Conv1D, parts of fused layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from peftsearch.backbone.family import Part
from peftsearch.errors import ConfigurationError

__all__ = ["LinearView"]


@dataclass(frozen=True)
class LinearView:
    """h = x W + b, with h [batch, tokens, d_out] all or some of a module's output channels.

    x is [batch, tokens, d_in], W [d_in, d_out]. Conv1D stores W as it is, nn.Linear its transpose.

    >>> from torch import nn
    >>> from peftsearch.backbone.family import Part
    >>> from peftsearch.backbone.linear import LinearView
    >>> layer = nn.ModuleDict({"qkv": nn.Linear(4, 18)})
    >>> values = LinearView.at(layer, Part("qkv", index=2, of=3))
    >>> values.channels, values.weight().shape
    (slice(12, 18, None), torch.Size([4, 6]))
    """

    module: nn.Module
    part: Part
    head_dim: int = 0
    """Width of a head; needed where layers are fused head by head or have fewer key heads."""
    kv_heads: int = 0
    """Number of key and value heads, where a fused layer has fewer of them than query heads."""
    _indices: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def at(cls, layer: nn.Module, part: Part, head_dim: int = 0) -> LinearView:
        """The view of a layer's part; ConfigurationError where its path leads to something else."""
        module = layer.get_submodule(part.path)
        if not isinstance(module, (nn.Linear, Conv1D)):
            raise ConfigurationError(f"{part.path} is {type(module).__name__}, not a linear layer")
        if not part.kv_heads:
            return cls(module, part, head_dim)
        attention: Any = layer.get_submodule(part.path.rpartition(".")[0])
        return cls(module, part, attention.head_dim, getattr(attention, part.kv_heads))

    @property
    def _weight(self) -> Tensor:
        """The module's own weight, or its replacement: [d_module, d_in], of a Conv1D transposed."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight

    @property
    def d_in(self) -> int:
        """Input channels."""
        shape = self._weight.shape
        return shape[0] if isinstance(self.module, Conv1D) else shape[1]

    @property
    def d_module(self) -> int:
        """Output channels of the whole module."""
        shape = self._weight.shape
        return shape[1] if isinstance(self.module, Conv1D) else shape[0]

    @property
    def d_out(self) -> int:
        """Output channels of the part."""
        if not self.kv_heads:
            return self.d_module // self.part.of
        shared = self.kv_heads * self.head_dim
        return shared if self.part.index else self.d_module - 2 * shared

    @property
    def channels(self) -> slice | Tensor:
        """The part's output channels: a slice of the module's, or their indices [d_out].

        Indices are kept on the weight's device, so that no forward copies them there.
        """
        if self.part.of == 1:
            return slice(None)
        if not self.part.per_head:
            return self._stretch()
        device = self._weight.device
        if device not in self._indices:
            # Made in an evaluation, they are used in training too, where autograd refuses to save
            # tensors that were made in inference mode.
            with torch.inference_mode(False):
                self._indices[device] = self._head_by_head(_index_device(device))
        return self._indices[device]

    def _stretch(self) -> slice:
        """The part's channels where all queries, all keys and all values lie one after another."""
        # Counted from the end: queries, which come first, may be wider than the other two.
        behind = self.part.of - 1 - self.part.index
        stop = self.d_module - behind * (self.kv_heads * self.head_dim or self.d_out)
        return slice(stop - self.d_out, stop)

    def _head_by_head(self, device: torch.device) -> Tensor:
        """The part's channels [d_out] where each group of heads has its queries (one, without
        groups), its key and its value side by side.
        """
        groups = self.kv_heads or self.d_module // (self.part.of * self.head_dim)
        every = torch.arange(self.d_module, device=device).view(groups, -1, self.head_dim)
        own = every[:, :-2] if self.part.index == 0 else every[:, self.part.index - 3]
        return own.flatten()

    def weight(self) -> Tensor:
        """W [d_in, d_out], without a gradient."""
        weight = self._weight.detach()
        return (weight if isinstance(self.module, Conv1D) else weight.T)[:, self.channels]

    def bias(self) -> Tensor | None:
        """b [d_out], the module's own or a tuned replacement; None without one."""
        bias = getattr(self.module, "bias", None)
        return None if bias is None else bias[self.channels]

    def read(self, output: Tensor) -> Tensor:
        """h [..., d_out] in the module's output [..., d_module]: a view, but for indices a copy."""
        return output if self.part.of == 1 else output[..., self.channels]

    def written(self, output: Tensor, h: Tensor) -> Tensor:
        """The module's output [..., d_module] with h [..., d_out] in the part's channels."""
        if self.part.of == 1:
            return h
        # In a copy: whatever else holds the output must not change with it.
        changed = output.clone()
        changed[..., self.channels] = h
        return changed


def _index_device(device: torch.device) -> torch.device:
    """The device of indices: the weight's; the CPU for a model on the meta device, which is only
    measured, since meta tensors hold no values.
    """
    return torch.device("cpu") if device.type == "meta" else device
