"""Costs of a backbone's layers: multiply-adds and elements moved for one token.

What costs time without being a multiply-add (reading and writing elements, starting operations) is
counted as the multiply-adds that a CPU core would have done meanwhile: one that multiplies and adds
7e10 times a second, reads and writes 1e10 bytes, and starts an operation of PyTorch in about 10 µs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

from peftsearch.design.shapes import AttentionShape, BackboneShapes

__all__ = ["ELEMENT", "LAYER", "SITE", "BodyLayer", "body_layers", "vocabulary"]

ELEMENT = 25.0
"""Multiply-adds in the time of reading or writing one element."""
LAYER = 2e7
"""Multiply-adds in the time of starting a layer's operations, once for a batch."""
SITE = 5e6
"""Multiply-adds in the time of starting a modification's operations at one site."""


@dataclass(frozen=True)
class BodyLayer:
    """One layer of a backbone."""

    index: int
    is_second: bool
    """Whether it belongs to the decoder of an encoder-decoder."""
    matrices: int
    """Parameters of its matrices: multiply-adds for each token."""
    keys: int
    """Those of them that compute keys and values."""
    elements: int
    """Elements read or written by norms, activations and sums, for each token."""
    attention: tuple[AttentionShape, ...]

    def forward(self, queries: float, tokens: float, read: float, prefix: float) -> float:
        """Multiply-adds for a text of `tokens` in this layer, of which `queries` are computed to
        the end. Cross-attention has `read` keys, self-attention `tokens`; a prefix adds its own.
        """
        found = queries * (self.matrices - self.keys + ELEMENT * self.elements)
        found += tokens * self.keys
        for attention in self.attention:
            keys = prefix + (read if attention.kind == "cross" else tokens)
            found += queries * keys * (2 * attention.d_query + ELEMENT * attention.heads)
        return found


@lru_cache(maxsize=64)
def body_layers(shapes: BackboneShapes) -> tuple[BodyLayer, ...]:
    """The layers of all stacks, lowest first."""
    matrices: dict[int | None, int] = defaultdict(int)
    for tensor in shapes.tensors:
        if len(tensor.shape) == 2:
            matrices[tensor.layer] += tensor.parameters
    first = shapes.stacks[0] if shapes.stacks else shapes.layers
    found = []
    for index in range(shapes.layers):
        attention = tuple(a for a in shapes.attention if a.layer == index)
        hidden = sum(f.d_hidden for f in shapes.ffn if f.layer == index)
        keys = sum(2 * a.d_in * a.d_key for a in attention)
        elements = 12 * shapes.hidden + 4 * hidden
        found.append(BodyLayer(index, index >= first, matrices[index], keys, elements, attention))
    return tuple(found)


@lru_cache(maxsize=64)
def vocabulary(shapes: BackboneShapes) -> int:
    """Multiply-adds of a language model's logits, for each token."""
    outside = [t for t in shapes.tensors if t.layer is None and len(t.shape) == 2]
    return max((t.parameters for t in outside), default=0)
