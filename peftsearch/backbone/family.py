"""One model family: the module paths of its sub-layers, and the few ways in which it differs.

`families.py` has the table, one row a family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    *("AttentionPaths", "ClassifierPaths", "Family", "FfnPaths", "Part", "Stack", "fused_parts"),
]


@dataclass(frozen=True)
class Part:
    """A linear layer by its path, or part `index` of `of` in the output of a fused one."""

    path: str
    index: int = 0
    of: int = 1
    per_head: bool = False
    """Whether the layer is fused head by head: each head's query, key and value lie side by side
    (GPT-NeoX), or each key and value head behind the queries that share it (Falcon).
    """
    kv_heads: str = ""
    """Name of the attention module's attribute that counts key and value heads, where a fused layer
    has fewer of them than query heads.
    """


@dataclass(frozen=True)
class AttentionPaths:
    """Modules of one attention sub-layer, relative to its layer."""

    module: str
    """The module that calls transformers' attention interface."""
    query: Part
    key: Part
    value: Part
    out: str
    norm: str
    """The sub-layer's norm: after the sum in post-norm families, before the sub-layer in pre-norm
    ones.
    """
    added: str = ""
    """The module whose output is added to the residual stream, if not `out` (Gemma 2 norms it)."""

    @classmethod
    def of(cls, module: str, names: str, out: str, norm: str, added: str = "") -> AttentionPaths:
        """Paths from the `names` of three projections within `module`, or of one fused layer."""
        paths = [f"{module}.{name}" for name in names.split()]
        query, key, value = map(Part, paths) if len(paths) == 3 else fused_parts(paths[0])
        return cls(module, query, key, value, out, norm, added)


def fused_parts(path: str, per_head: bool = False, kv_heads: str = "") -> tuple[Part, Part, Part]:
    """Query, key and value as parts of one layer's output, in this order."""
    query, key, value = (Part(path, index, 3, per_head, kv_heads) for index in range(3))
    return query, key, value


@dataclass(frozen=True)
class FfnPaths:
    """Modules of one feed-forward sub-layer, relative to its layer."""

    hidden: Part
    out: str
    norm: str
    gate: Part | None = None
    """The projection that passes the activation, in a gated ffn."""
    added: str = ""
    """As in `AttentionPaths`."""


@dataclass(frozen=True)
class Stack:
    """One stack of layers: the only one, or an encoder-decoder's encoder or decoder."""

    layers: str
    attention: AttentionPaths
    ffn: FfnPaths
    cross: AttentionPaths | None = None
    module: str = ""
    """Path of the stack's module, which reads token ids; empty: the model itself."""
    is_decoder: bool = False


@dataclass(frozen=True)
class ClassifierPaths:
    """Paths in transformers' sequence-classification model of a family: of a layer with tanh that
    reads the first token, and of the linear layer after it. `{body}` is the body's name there.
    """

    pooler: str
    classifier: str
    saved: tuple[str, ...]
    """Modules that hold these two layers and nothing else."""


@dataclass(frozen=True)
class Family:
    """One row of the table: the paths of a family, and the few ways in which it differs."""

    name: str
    model_types: tuple[str, ...]
    stacks: tuple[Stack, ...]
    pre_norm: bool = False
    """Whether sub-layers read a normed copy of the residual stream."""
    pooler: str | None = None
    """Path of the pretrained pooler, whose `dense` is its linear layer."""
    classifier: ClassifierPaths | None = None
    """Paths of transformers' classification head, where it computes what ours with a pooler over
    the first token does.
    """
    key_bias: Literal["dead", "alive", "rotary"] = "dead"
    """Whether a bias b on the keys gets a gradient. `dead`: under plain softmax q·b shifts every
    logit of a query alike, and cancels. `alive`: rotary positions turn b with each key, or relative
    positions add further terms of the keys. `rotary`: only in the dimensions of a head that turn.
    """
    dead: tuple[str, ...] = ()
    """Ends of the names of further tensors that get no gradient for the same reason."""
    positions_after_padding: bool = False
    """Whether positions begin at row `pad_token_id + 1` of their table (fairseq's habit)."""
    takes_prefix: bool = True
    """Whether its attention calls transformers' attention interface, where prefixes join."""
    texts_are_independent: bool = True
    """Whether every row that its projections read belongs to one text. DeBERTa's read relative
    positions, too, so that configurations cannot share a forward.
    """
    allows_cuda_graphs: bool = True
    """Whether a forward can be captured as a CUDA graph: not where the model's own code makes
    tensors on the host in every forward.
    """
    sums_attention: bool = True
    """Whether attention joins the stream before the ffn reads it; False: both join in one sum."""
    layer_output: Callable[[Any, Any], Any] = field(
        default=lambda states, others: states, compare=False
    )
    """(states, positional arguments after the first) → the value that a layer returns."""
    first_layer_shares: bool = False
    """Whether the other layers need what the first one computes (T5's position bias)."""
    when: Callable[[Any], bool] = field(default=lambda config: True, compare=False)
    """Whether the row is for a config of its model types."""
    note: str = ""
    """A sentence for users on what the family cannot take."""

    @property
    def is_encoder_decoder(self) -> bool:
        return len(self.stacks) > 1
