"""The shape of a backbone in plain numbers, for counting parameters without a model.

`backbone/` fills these in from a family's row and a model on the meta device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

__all__ = [
    "ATTENTION_KINDS",
    "FFN_KINDS",
    "AttentionShape",
    "BackboneShapes",
    "FfnShape",
    "SiteShape",
    "TensorShape",
]

ATTENTION_KINDS = ("enc_self", "dec_self", "cross")
"""Self-attention of an encoder, of a decoder, and a decoder's attention to the encoder."""
FFN_KINDS = ("enc", "dec")


@dataclass(frozen=True)
class AttentionShape:
    """One attention sub-layer: [batch, tokens, d_in] → [batch, heads, tokens, head_dim] → [batch,
    tokens, d_out].
    """

    layer: int
    d_in: int
    heads: int
    kv_heads: int
    head_dim: int
    d_out: int
    kind: str = "enc_self"
    biased: tuple[str, ...] = ()
    """Places whose linear layer has a bias: `attn.query`."""

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
    """One feed-forward sub-layer: [batch, tokens, d_in] → [.., d_hidden] → [.., d_out].

    `gated`: two parallel projections, one of which passes the activation and gates the other.
    """

    layer: int
    d_in: int
    d_hidden: int
    d_out: int
    gated: bool = False
    kind: str = "enc"
    biased: tuple[str, ...] = ()
    """As in `AttentionShape`."""


@dataclass(frozen=True)
class TensorShape:
    """One tensor of the pretrained body."""

    name: str
    shape: tuple[int, ...]
    layer: int | None = None
    """None outside the layers: embeddings, their norm and a final norm."""
    is_bias: bool = False
    is_norm: bool = False
    dead: tuple[tuple[int, int], ...] = ()
    """Stretches [start, stop) of a bias whose gradient is zero: keys under plain softmax attention,
    where a bias shifts every logit alike. In a fused projection they are a part of one tensor.
    """

    @property
    def parameters(self) -> int:
        return prod(self.shape)

    @property
    def live(self) -> int:
        """Entries that can get a gradient."""
        return self.parameters - sum(stop - start for start, stop in self.dead)


@dataclass(frozen=True)
class BackboneShapes:
    """The pretrained body: without pooler and head, embeddings included, tied weights once.

    Layers are numbered over the whole backbone: an encoder-decoder's decoder follows its encoder.
    """

    hidden: int
    attention: tuple[AttentionShape, ...]
    ffn: tuple[FfnShape, ...]
    tensors: tuple[TensorShape, ...]
    family: str = "backbone"
    stacks: tuple[int, ...] = ()
    """Layers of each stack: (12,), or (12, 12) for encoder and decoder."""
    d_embedding: int = 0
    """Width of the token embeddings; 0: as `hidden`."""
    longest_prompt: int = 300
    """Most tokens of a prompt: He et al.'s 300, and at most a quarter of the positions."""
    pre_norm: bool = False
    """Whether sub-layers read a normed copy of the residual stream, not the stream itself."""
    takes_prefix: bool = True
    """Whether its attention can be given further keys and values."""
    sums_attention: bool = True
    """Whether attention is added to the stream before the ffn reads it (GPT-NeoX adds both at
    once, so that there is no representation after attention's sum).
    """

    @cached_property
    def layers(self) -> int:
        """Number of layers of all stacks."""
        return sum(self.stacks) or 1 + max(shape.layer for shape in self.attention)

    @cached_property
    def is_causal(self) -> bool:
        """Whether a head reads a decoder's states, which depend on earlier tokens only."""
        return any(shape.kind == "dec_self" for shape in self.attention)

    @cached_property
    def body_parameters(self) -> int:
        """Parameters of the body, the denominator of every tuned %."""
        return sum(tensor.parameters for tensor in self.tensors)

    def parameters_below(self, layers: int) -> int:
        """Parameters of the lowest `layers` layers."""
        own = (t.parameters for t in self.tensors if t.layer is not None and t.layer < layers)
        return sum(own)

    @cached_property
    def _hash(self) -> int:
        parts = (self.hidden, self.attention, self.ffn, self.tensors, self.family, self.stacks)
        return hash(parts)

    def __hash__(self) -> int:
        # Every cache lookup of the sampler hashes the shapes: a large model's thousands of tensors
        # are hashed once. Equality still compares all fields.
        return self._hash


@dataclass(frozen=True)
class SiteShape:
    """One representation h in one layer, with the widths of the vectors that a modification may
    read.

    h is [batch, tokens, d_h]; the sub-layer's input [batch, tokens, d_sublayer]; the input of the
    linear layer that computes h [batch, tokens, d_projection].
    For tensors of the body (`biases`, `norm`, `weights`), `tensor` is the tuned part's shape, and
    the widths are 0.
    """

    key: str
    """Unique in the backbone: `layers.3.attn.query`, or a tensor's name."""
    place: str
    layer: int | None
    d_h: int = 0
    d_sublayer: int = 0
    d_projection: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    kind: str = ""
    tensor: tuple[int, ...] = ()
    has_bias: bool = False
    """Whether the linear layer that computes h, if one does, has a bias."""
    longest: int = 0
    """At `embedding`: the longest prompt, in tokens, that leaves room for the text; else 0."""
