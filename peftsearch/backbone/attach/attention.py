"""Prefixes inside attention, through transformers' attention interface.

Registered once under the name `peftsearch`; without a prefix it is plain SDPA, bit for bit.
The mask function is registered with it: without that, padding leaks into the softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from peftsearch.design.composition import Composition, Surroundings
from peftsearch.design.form import Prefix

__all__ = [
    *("NAME", "AttachedPrefix", "attach_prefix", "detach_prefix"),
    *("select_all_queries", "select_queries", "register"),
]

NAME = "peftsearch"


@dataclass(frozen=True)
class AttachedPrefix:
    """A prefix in one attention module."""

    form: Prefix
    composition: Composition
    tensors: Callable[[], Mapping[str, Tensor]]
    """`keys` and `values` (kv_heads, l, head_dim), and the composition's own."""
    read: Callable[[], Tensor] | None = None
    """The sub-layer's input (batch, seq, d), for a gate that reads it."""

    @property
    def is_exact(self) -> bool:
        """Whether its gate is the softmax over prefix and tokens together."""
        return not self.composition.keeps_identity

    def compose(self, heads: Tensor, query: Tensor, scaling: float) -> Tensor:
        """heads (batch, seq, heads, head_dim) with Δh, for a composition outside the softmax."""
        tensors = self.tensors()
        delta = self.form.delta(tensors, query.to(tensors["keys"].dtype) * scaling)
        read = self.read() if self.read else query.new_empty(0)
        around = Surroundings(read, tensors["keys"].shape[1], tensors)
        return self.composition.compose(
            tensors, heads, delta.transpose(1, 2).to(heads.dtype), around
        )


_ATTACHED: WeakKeyDictionary[nn.Module, list[AttachedPrefix]] = WeakKeyDictionary()

PrefixesOf = Callable[[int], list[tuple[slice, list[AttachedPrefix]]]]
"""Number of texts → which of them have which prefixes, in order."""
_SHARED: WeakKeyDictionary[nn.Module, PrefixesOf] = WeakKeyDictionary()


class QuerySelection(Protocol):
    """Which queries are wanted."""

    def select(self, states: Tensor, dim: int = 1, texts: slice = slice(None)) -> Tensor: ...


_SELECTIONS: WeakKeyDictionary[nn.Module, QuerySelection] = WeakKeyDictionary()


def select_queries(module: nn.Module, rows: QuerySelection) -> None:
    """From now on one query a text is computed: `rows` of them."""
    _SELECTIONS[module] = rows


def select_all_queries(module: nn.Module) -> None:
    _SELECTIONS.pop(module, None)


def selected(module: nn.Module, states: Tensor, texts: slice) -> Tensor:
    """Of states (batch, seq, d) of `texts`, those of the tokens whose queries are computed."""
    rows = _SELECTIONS.get(module)
    return states if rows is None else rows.select(states, texts=texts)


def register() -> None:
    """Make `set_attn_implementation("peftsearch")` possible."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _mask)


MASK_SKIP_DEVICES = ("cpu",)
"""Devices on which a mask is read to see whether it masks anything: elsewhere that would wait."""


def _mask(*args: Any, **options: Any) -> Tensor | None:
    """transformers' mask for SDPA; left out where nothing is padded, if that is cheap to know."""
    given = options.get("attention_mask")
    if given is not None and given.device.type not in MASK_SKIP_DEVICES:
        options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    mask: Tensor | None = sdpa_mask(*args, **options)
    return mask


def attach_prefix(module: nn.Module, prefix: AttachedPrefix) -> None:
    _ATTACHED.setdefault(module, []).append(prefix)


def share_prefixes(module: nn.Module, prefixes_of: PrefixesOf) -> None:
    """Have different texts of one forward attend over different prefixes."""
    _SHARED[module] = prefixes_of


def unshare_prefixes(module: nn.Module) -> None:
    _SHARED.pop(module, None)


def detach_prefix(module: nn.Module) -> None:
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
    """Heads' output (batch, seq, heads, head_dim), with the module's prefixes if it has any.

    `query` is (batch, heads, seq, head_dim); `key` and `value` have kv_heads.
    """
    rows, length, shared = _SELECTIONS.get(module), query.shape[2], _SHARED.get(module)
    if rows is not None:
        attention_mask = _causal_mask(module, query, key, attention_mask)
        query, attention_mask = _select(rows, query, attention_mask, options)
    inputs = _Inputs(module, query, key, value, attention_mask, scaling, options)
    spans = shared(len(query)) if shared else []
    spans = spans or [(slice(0, len(query)), _ATTACHED.get(module, []))]
    parts = [inputs.of_texts(texts, len(spans)).attend(prefixes) for texts, prefixes in spans]
    heads = parts[0] if len(parts) == 1 else torch.cat(parts)
    if heads.shape[1] < length:  # the model reshapes to what it gave
        heads = heads.expand(-1, length, -1, -1)
    return heads, None


@dataclass(frozen=True)
class _Inputs:
    """What attention is given for some texts."""

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float | None
    options: Mapping[str, Any]

    def of_texts(self, texts: slice, spans: int) -> _Inputs:
        """Those of `texts`, one of `spans` parts."""
        if spans == 1:
            return self
        bias = self.options.get("position_bias")
        options = {} if bias is None else {"position_bias": _of_texts(bias, texts)}
        return replace(
            self,
            query=self.query[texts],
            key=self.key[texts],
            value=self.value[texts],
            mask=None if self.mask is None else _of_texts(self.mask, texts),
            options={**self.options, **options},
        )

    def attend(self, prefixes: Sequence[AttachedPrefix]) -> Tensor:
        """Heads' output (batch, seq, heads, head_dim), all texts with the same prefixes."""
        query, key, value, mask = self.query, self.key, self.value, self.mask
        options = dict(self.options)
        for prefix in prefixes:
            if prefix.is_exact:
                mask = _causal_mask(self.module, query, key, mask)
                before = key.shape[2]
                key, value, mask = _prepend(prefix, query, key, value, mask)
                if options.get("position_bias") is not None:  # T5's: a prefix has no position
                    bias = options["position_bias"]
                    options["position_bias"] = nn.functional.pad(bias, (key.shape[2] - before, 0))
        softmax = _softcapped if options.get("softcap") else sdpa_attention_forward
        heads: Tensor
        heads, _ = softmax(self.module, query, key, value, mask, scaling=self.scaling, **options)
        for prefix in prefixes:
            if not prefix.is_exact:
                heads = prefix.compose(heads, query, _scaling(query, self.scaling))
        return heads


def _of_texts(values: Tensor, texts: slice) -> Tensor:
    """Some texts' part of what may be one for all."""
    return values if len(values) == 1 else values[texts]


def _select(
    rows: QuerySelection, query: Tensor, mask: Tensor | None, options: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """One query a text, and what it sees."""
    if options.get("position_bias") is not None:
        options["position_bias"] = rows.select(options["position_bias"], dim=2)
    return rows.select(query, dim=2), None if mask is None else rows.select(mask, dim=2)


def _scaling(query: Tensor, scaling: float | None) -> float:
    return float(query.shape[-1] ** -0.5) if scaling is None else scaling


def _causal_mask(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None
) -> Tensor | None:
    """The mask that SDPA would imply: with a prefix before the tokens it has to be written out."""
    queries, keys = query.shape[2], key.shape[2]
    if mask is not None or queries == 1 or not getattr(module, "is_causal", False):
        return mask
    visible = torch.ones(queries, keys, dtype=torch.bool, device=query.device)
    return visible.tril(keys - queries)[None, None]


def _prepend(
    prefix: AttachedPrefix, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One softmax over prefix and tokens: equation 8's gate, exactly."""
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
    """Attention whose logits are capped by tanh (Gemma 2): SDPA has no word for it."""
    mask = _causal_mask(module, query, key, mask)
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    logits = query @ key.transpose(-1, -2) * _scaling(query, scaling)
    logits = softcap * torch.tanh(logits / softcap)
    if mask is not None and mask.dtype == torch.bool:
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    elif mask is not None:
        logits = logits + mask
    weights = logits.softmax(-1, dtype=torch.promote_types(torch.float32, query.dtype))
    if dropout:
        weights = nn.functional.dropout(weights, dropout)
    return (weights.to(query.dtype) @ value).transpose(1, 2).contiguous(), None
