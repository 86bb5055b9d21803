"""Prefixes inside attention, through transformers' attention interface.

Registered once under the name `peftsearch`; without a prefix it is plain SDPA, bit for bit.
The mask function is registered with it: without that, padding leaks into the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from peftsearch.design.composition import Composition
from peftsearch.design.form import Prefix

__all__ = ["NAME", "AttachedPrefix", "attach_prefix", "detach_prefix", "register"]

NAME = "peftsearch"


@dataclass(frozen=True)
class AttachedPrefix:
    """A prefix in one attention module: `keys` and `values` (kv_heads, l, head_dim)."""

    form: Prefix
    composition: Composition
    tensors: Mapping[str, Tensor]


_ATTACHED: WeakKeyDictionary[nn.Module, AttachedPrefix] = WeakKeyDictionary()


def register() -> None:
    """Make `set_attn_implementation("peftsearch")` possible."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def attach_prefix(module: nn.Module, prefix: AttachedPrefix) -> None:
    _ATTACHED[module] = prefix


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
    """Heads' output (batch, seq, heads, head_dim), with the module's prefix if it has one.

    `query` is (batch, heads, seq, head_dim); `key` and `value` have kv_heads.
    """
    prefix = _ATTACHED.get(module)
    if prefix is not None and not prefix.composition.keeps_identity:
        key, value, attention_mask = _prepend(prefix, query, key, value, attention_mask)
    heads: Tensor
    heads, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **options
    )
    if prefix is not None and prefix.composition.keeps_identity:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        tensors = prefix.tensors
        delta = prefix.form.delta(tensors, query.to(tensors["keys"].dtype) * scale)
        heads = prefix.composition.compose(tensors, heads, delta.transpose(1, 2).to(heads.dtype))
    return heads, None


def _prepend(
    prefix: AttachedPrefix, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One softmax over prefix and tokens: equation 8's gate, exactly."""
    batch = query.shape[0]
    keys, values = (
        prefix.tensors[name].to(key.dtype).expand(batch, -1, -1, -1) for name in ("keys", "values")
    )
    key, value = torch.cat((keys, key), dim=2), torch.cat((values, value), dim=2)
    if mask is not None:
        visible = True if mask.dtype == torch.bool else 0.0
        mask = nn.functional.pad(mask, (keys.shape[2], 0), value=visible)
    return key, value, mask
