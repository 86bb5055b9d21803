"""The shape of a backbone in plain numbers: all that counting needs, and no model.

`backbone/` fills these in from a family's row and a model on the meta device.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

__all__ = ["AttentionShape", "BackboneShapes", "FfnShape", "SiteShape", "TensorShape"]


@dataclass(frozen=True)
class AttentionShape:
    """One attention sub-layer: (batch, seq, `d_in`) → heads → (batch, seq, `d_out`)."""

    layer: int
    d_in: int
    heads: int
    kv_heads: int
    head_dim: int
    d_out: int

    @property
    def d_query(self) -> int:
        """Width of the queries, and of the concatenated heads' output."""
        return self.heads * self.head_dim

    @property
    def d_key(self) -> int:
        """Width of the keys and of the values."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class FfnShape:
    """One feed-forward sub-layer: (batch, seq, `d_in`) → `d_hidden` → `d_out`."""

    layer: int
    d_in: int
    d_hidden: int
    d_out: int


@dataclass(frozen=True)
class TensorShape:
    """One tensor of the pretrained body."""

    name: str
    shape: tuple[int, ...]
    layer: int | None = None
    """None outside the layers: embeddings and their norm."""
    is_bias: bool = False
    dead: bool = False
    """A key bias under plain softmax attention: its gradient is zero (it shifts every logit)."""

    @property
    def parameters(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class BackboneShapes:
    """The pretrained body: without pooler and head, embeddings included, tied weights once."""

    hidden: int
    attention: tuple[AttentionShape, ...]
    ffn: tuple[FfnShape, ...]
    tensors: tuple[TensorShape, ...]

    @property
    def layers(self) -> int:
        return 1 + max(shape.layer for shape in self.attention)

    @property
    def body_parameters(self) -> int:
        """The denominator of every tuned %."""
        return sum(tensor.parameters for tensor in self.tensors)


@dataclass(frozen=True)
class SiteShape:
    """One representation h in one layer, and what a modification of it may read.

    `h` is (batch, seq, `d_h`); the sub-layer's input is (batch, seq, `d_sublayer`); the input of
    the linear layer that computes h is (batch, seq, `d_projection`).
    For tensors of the body (`biases`, `weights`), `tensor` is the tensor's own shape.
    """

    key: str
    """Unique in the backbone: `layers.3.attn.query`, or a tensor's name."""
    place: str
    layer: int | None
    d_h: int = 0
    d_sublayer: int = 0
    d_projection: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    tensor: tuple[int, ...] = ()
