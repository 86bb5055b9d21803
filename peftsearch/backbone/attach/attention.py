"""Prefixes inside attention, through transformers' attention interface.

Registered once under the name `peftsearch`; without a prefix it is plain SDPA, bit for bit. The
interface calls it with the attention module first, so that prefixes are looked up by module, and
with queries, keys and values after rotary positions and after the cache: a prefix has no position
and is never cached.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from peftsearch.design.composition import Composition, CompositionContext
from peftsearch.design.form import Prefix

__all__ = [
    *("NAME", "AttachedPrefix", "Inputs", "attach_prefix", "detach_prefix", "prefix_of_all"),
    *("padded_at_end", "select_all_queries", "select_queries", "register"),
]

NAME = "peftsearch"


@dataclass(frozen=True)
class AttachedPrefix:
    """A prefix in one attention module, with its composition."""

    form: Prefix
    composition: Composition
    tensors: Callable[[], Mapping[str, Tensor]]
    """`keys` and `values` [kv_heads, l, head_dim], and the composition's own, by name."""
    read: Callable[[], Tensor] | None = None
    """The sub-layer's input [batch, tokens, d_source], for a gate that reads it."""
    width: int | None = None
    """l, if it may be computed beside other texts' prefixes of this length."""
    reads_module: ClassVar[bool] = False
    """Whether it reads parameters of the module."""

    @property
    def is_exact(self) -> bool:
        """Whether it is gated by the softmax over prefix and tokens together (He et al., eq. 8)."""
        return not self.composition.keeps_identity

    @property
    def kind(self) -> Hashable | None:
        """A key, equal for prefixes that different texts of one softmax can have; None for one
        outside the softmax.
        """
        return self.width if self.is_exact else None

    def compose(self, heads: Tensor, query: Tensor, scaling: float) -> Tensor:
        """The heads' output [batch, tokens, heads, head_dim] with Δh, outside the softmax.

        `query` is [batch, heads, tokens, head_dim], before scaling.
        """
        tensors = self.tensors()
        delta = self.form.delta(tensors, query.to(tensors["keys"].dtype) * scaling)
        read = self.read() if self.read else query.new_empty(0)
        context = CompositionContext(read, tensors["keys"].shape[1], tensors)
        return self.composition.compose(
            tensors, heads, delta.transpose(1, 2).to(heads.dtype), context
        )


# By module and weakly, not as attributes of modules: nothing of ours is saved, copied or moved with
# the model, and a model that is dropped takes its entries along.
_ATTACHED: WeakKeyDictionary[nn.Module, list[AttachedPrefix]] = WeakKeyDictionary()

SharedAttention = Callable[["Inputs"], Tensor]
"""Attention in which texts have different prefixes: `Inputs` → heads' output, as its `attend`."""
_SHARED: WeakKeyDictionary[nn.Module, SharedAttention] = WeakKeyDictionary()


class QuerySelection(Protocol):
    """The choice of one token a text whose query is computed."""

    def select(self, states: Tensor, dim: int = 1, texts: slice = slice(None)) -> Tensor:
        """States [batch, ..., tokens, ...], with axis `dim` (tokens) cut to one token a text."""
        ...


_SELECTIONS: WeakKeyDictionary[nn.Module, QuerySelection] = WeakKeyDictionary()


def select_queries(module: nn.Module, rows: QuerySelection) -> None:
    """Compute one query a text from now on, the one that `rows` selects."""
    _SELECTIONS[module] = rows


def select_all_queries(module: nn.Module) -> None:
    """Compute the queries of all tokens again."""
    _SELECTIONS.pop(module, None)


def selected(module: nn.Module, states: Tensor, texts: slice) -> Tensor:
    """States [batch, tokens, d] of `texts`, cut to the tokens whose queries `module` computes:
    [batch, 1, d] while a selection is in place.
    """
    rows = _SELECTIONS.get(module)
    return states if rows is None else rows.select(states, texts=texts)


def register() -> None:
    """Make `set_attn_implementation("peftsearch")` possible."""
    # The mask function belongs to the name, too: transformers (5.23) builds no mask for a name
    # without one, and padding would leak into the softmax.
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _mask)


MASK_SKIP_DEVICES = ("cpu",)
"""Devices on which a mask is read on the host, to leave it out where nothing is padded. On a GPU
that would wait for everything queued there, in every forward.
"""
GROUPS_BESIDE_MASKS = ("cpu",) if torch.__version__ >= (2, 13) else ()  # type: ignore[operator]
"""Devices whose fused SDPA takes grouped queries and a mask at once, from the first torch it was
measured with. transformers (5.23) repeats keys and values for every masked call, since a GPU would
fall back to its slowest kernel.
"""
_padded_at_end = False
"""Whether the texts of the forwards to come have all their padding behind their tokens."""


@contextmanager
def padded_at_end(on: bool = True) -> Iterator[None]:
    """Context for forwards of texts padded at their end: causal attention gets no padding mask,
    since no token sees what comes after it. States at padding differ from those with the mask.
    """
    global _padded_at_end
    before, _padded_at_end = _padded_at_end, on
    try:
        yield
    finally:
        _padded_at_end = before


def _mask(*args: Any, **options: Any) -> Tensor | None:
    """transformers' mask for SDPA [batch, 1, tokens, keys], True where attended; None where nothing
    is masked, or nothing but causally, if that is cheap to know.
    """
    # transformers allows the skip for plain causal masks and for those with a window.
    causal = options.get("allow_is_causal_skip", True) and not options.get("q_offset", 0)
    if _padded_at_end and causal and options.get("q_length") == options["kv_length"]:
        options["attention_mask"] = None
    padding = options.get("attention_mask")
    if padding is not None and padding.device.type not in MASK_SKIP_DEVICES:
        options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    mask: Tensor | None = sdpa_mask(*args, **options)
    return mask


def attach_prefix(module: nn.Module, prefix: AttachedPrefix) -> None:
    """Have all texts attend over one more prefix in `module`."""
    _ATTACHED.setdefault(module, []).append(prefix)


def share_prefixes(module: nn.Module, shared: SharedAttention) -> None:
    """Have different texts of one forward attend over different prefixes in `module`."""
    _SHARED[module] = shared


def unshare_prefixes(module: nn.Module) -> None:
    """The reverse of `share_prefixes`."""
    _SHARED.pop(module, None)


def detach_prefix(module: nn.Module) -> None:
    """The reverse of `attach_prefix`, of all prefixes."""
    _ATTACHED.pop(module, None)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The heads' output [batch, tokens, heads, head_dim], with the module's prefixes if any, and
    None for the attention weights, which SDPA does not give.

    `query` is [batch, heads, tokens, head_dim]; `key` and `value` are [batch, kv_heads, keys,
    head_dim]; `attention_mask` is [batch or 1, 1 or heads, tokens, keys], of bool (True: attended)
    or additive.
    """
    rows, length, shared = _SELECTIONS.get(module), query.shape[2], _SHARED.get(module)
    if rows is not None:
        attention_mask = _causal_mask(module, query, key, attention_mask)
        query, attention_mask = _select(rows, query, attention_mask, options)
    inputs = Inputs(module, query, key, value, attention_mask, scaling, options)
    heads = shared(inputs) if shared else inputs.attend(_ATTACHED.get(module, []))
    if heads.shape[1] < length:
        # The model's own code reshapes to the length of the states it passed in. A view costs
        # nothing, and what follows selects the same token again.
        heads = heads.expand(-1, length, -1, -1)
    return heads, None


@dataclass(frozen=True)
class Inputs:
    """The arguments of `attend`, of all texts or of some; shapes as there."""

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float | None
    options: Mapping[str, Any]

    def split(self, counts: Sequence[int]) -> list[Inputs]:
        """The arguments of the first `counts[0]` texts alone, of the next `counts[1]`, and so on.

        One split a tensor: the backward of a slice writes a whole tensor of zeros.
        """
        if len(counts) == 1:
            return [self]
        columns = [_split(values, counts) for values in self._by_text]
        return [self._with(*values) for values in zip(*columns, strict=True)]

    @classmethod
    def joined(cls, several: Sequence[Inputs]) -> Inputs:
        """The reverse of `split`."""
        if len(several) == 1:
            return several[0]
        columns = zip(*(one._by_text for one in several), strict=True)
        return several[0]._with(*(_joined(column) for column in columns))

    @property
    def _by_text(self) -> tuple[Tensor | None, ...]:
        """The tensors with one row per text."""
        bias = self.options.get("position_bias")
        return self.query, self.key, self.value, self.mask, bias

    def _with(
        self,
        query: Tensor | None,
        key: Tensor | None,
        value: Tensor | None,
        mask: Tensor | None,
        bias: Tensor | None,
    ) -> Inputs:
        assert query is not None
        assert key is not None
        assert value is not None
        options = self.options if bias is None else {**self.options, "position_bias": bias}
        return Inputs(self.module, query, key, value, mask, self.scaling, options)

    def attend(self, prefixes: Sequence[AttachedPrefix]) -> Tensor:
        """The heads' output [batch, tokens, heads, head_dim], all texts with the same prefixes."""
        query, key, value, mask = self.query, self.key, self.value, self.mask
        options = dict(self.options)
        for prefix in prefixes:
            if prefix.is_exact:
                # Before the prefix makes keys longer than queries: see `_causal_mask`.
                mask = _causal_mask(self.module, query, key, mask)
                before = key.shape[2]
                key, value, mask = _prepend(prefix, query, key, value, mask)
                if options.get("position_bias") is not None:
                    # T5's relative positions [1 or batch, heads, tokens, keys] are added to the
                    # logits; a prefix has no position, so its columns are 0.
                    bias = options["position_bias"]
                    options["position_bias"] = nn.functional.pad(bias, (key.shape[2] - before, 0))
        heads: Tensor
        heads, _ = self._softmax(mask)(
            *(self.module, query, key, value, mask), scaling=self.scaling, **options
        )
        for prefix in prefixes:
            if not prefix.is_exact:
                heads = prefix.compose(heads, query, _scaling(query, self.scaling))
        return heads

    def _softmax(self, mask: Tensor | None) -> Callable[..., tuple[Tensor, None]]:
        """The function that computes attention with this mask; arguments as for `attend`."""
        if self.options.get("softcap"):
            return _softcapped
        grouped = self.query.shape[1] > self.key.shape[1] and self.query.shape[2] > 1
        here = self.query.device.type in GROUPS_BESIDE_MASKS
        if grouped and here and mask is not None and self.options.get("position_bias") is None:
            return _grouped
        return sdpa_attention_forward


def _split(values: Tensor | None, counts: Sequence[int]) -> Sequence[Tensor | None]:
    """[batch or 1, ...] in parts of `counts` texts; one row for all texts goes to each part."""
    return [values] * len(counts) if values is None or len(values) == 1 else values.split(counts)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The reverse of `_split`; what is one row for all texts is in every part."""
    if parts[0] is None or all(part is parts[0] for part in parts):
        return parts[0]
    return torch.cat([part for part in parts if part is not None])


def prefix_of_all(several: Sequence[AttachedPrefix], texts: int) -> AttachedPrefix:
    """One prefix whose keys and values differ from text to text, [batch, kv_heads, l, head_dim]:
    those of several of one `kind`, for an equal share of the texts each.
    """

    def tensors() -> dict[str, Tensor]:
        held = [one.tensors() for one in several]
        return {
            name: torch.stack([own[name] for own in held])
            .unsqueeze(1)
            .expand(-1, texts // len(several), -1, -1, -1)
            .flatten(0, 1)
            for name in ("keys", "values")
        }

    return several[0] if len(several) == 1 else replace(several[0], tensors=tensors)


def _select(
    rows: QuerySelection, query: Tensor, mask: Tensor | None, options: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """One query a text, [batch, heads, 1, head_dim], and its row of the mask [batch, ·, 1, keys];
    the position bias in `options` follows.
    """
    if options.get("position_bias") is not None:
        options["position_bias"] = rows.select(options["position_bias"], dim=2)
    return rows.select(query, dim=2), None if mask is None else rows.select(mask, dim=2)


def _scaling(query: Tensor, scaling: float | None) -> float:
    """The factor of the logits: `scaling`, else 1/√head_dim of the query [..., head_dim]."""
    return float(query.shape[-1] ** -0.5) if scaling is None else scaling


def _causal_mask(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None
) -> Tensor | None:
    """The mask that SDPA would imply, written out as [1, 1, tokens, keys] of bool."""
    # Without a mask, transformers' SDPA (5.23) takes a causal module's surplus keys for an empty
    # cache, and cuts keys and values to the length of the queries: with a prefix in front it would
    # attend over the prefix and drop as many tokens.
    queries, keys = query.shape[2], key.shape[2]
    if mask is not None or queries == 1 or not getattr(module, "is_causal", False):
        return mask
    visible = torch.ones(queries, keys, dtype=torch.bool, device=query.device)
    return visible.tril(keys - queries)[None, None]


def _prepend(
    prefix: AttachedPrefix, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys and values [batch, kv_heads, l + keys, head_dim] with the prefix in front, and the mask
    [.., l + keys]: one softmax over both is He et al.'s gate (equation 8), exactly.
    """
    batch = query.shape[0]
    tensors = prefix.tensors()
    keys, values = (
        tensors[name].to(key.dtype).expand(batch, -1, -1, -1) for name in ("keys", "values")
    )
    key, value = torch.cat((keys, key), dim=2), torch.cat((values, value), dim=2)
    if mask is not None:
        visible = True if mask.dtype == torch.bool else 0.0
        mask = nn.functional.pad(mask, (keys.shape[2], 0), value=visible)
    return key, value, mask


def _grouped(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of grouped queries under a mask without repeating keys and values, shapes as
    `attend`.
    """
    heads = nn.functional.scaled_dot_product_attention(
        *(query, key, value, mask), dropout_p=dropout, scale=scaling, enable_gqa=True
    )
    return heads.transpose(1, 2).contiguous(), None


def _softcapped(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    softcap: float = 50.0,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention with logits capped to ±softcap by tanh (Gemma 2), shapes as `attend`.

    transformers' SDPA function (5.23) raises ValueError for a softcap, so it is written out here.
    """
    mask = _causal_mask(module, query, key, mask)
    batch, heads, tokens, _ = query.shape
    # Grouped queries: those that share a key and value head are taken for more tokens of one head.
    grouped = query.reshape(batch, key.shape[1], -1, query.shape[3])
    logits = (grouped @ key.transpose(-1, -2)).view(batch, heads, tokens, -1)
    logits = softcap * torch.tanh(logits * _scaling(query, scaling) / softcap)
    if mask is not None and mask.dtype == torch.bool:
        # The least number rather than −inf: a text of padding alone gives no NaN.
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    elif mask is not None:
        logits = logits + mask
    # In fp32 also beside a half-precision body, as in transformers' eager attention of Gemma 2.
    weights = logits.softmax(-1, dtype=torch.promote_types(torch.float32, query.dtype))
    if dropout:
        weights = nn.functional.dropout(weights, dropout)
    mixed = weights.to(query.dtype).view(batch, key.shape[1], -1, key.shape[2]) @ value
    return mixed.view(batch, heads, tokens, -1).transpose(1, 2).contiguous(), None
