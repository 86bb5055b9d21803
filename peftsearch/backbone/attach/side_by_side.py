"""Modifications of several members at one site, computed in one batch.

Members whose new h is h + s Δh may differ in s, which becomes a tensor, and in the width of a
bottleneck: narrower ones are padded with zeros, which add exactly nothing to Δh, and whose gradient
is dropped by the padding's backward. Others of one kind differ in the values of tensors alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from peftsearch.backbone.attach.site_modification import SiteModification

__all__ = ["modify_together"]

_Held = Sequence[Mapping[str, Tensor]]
"""Each member's tensors by name."""


def modify_together(several: Sequence[SiteModification], x: Tensor, h: Tensor) -> Tensor:
    """The new h [texts, ..., d_h] of several of one `kind`, each with as many of the texts, in
    order, from x [texts, ..., d_source] and h of all.
    """
    first, held = several[0], [one.tensors() for one in several]
    if first.adds and first.modification.form.batches:
        return _added(several, held, x, h)
    beside = [values.reshape(len(several), -1, *values.shape[1:]) for values in (x, h)]
    dims = {key: _dim([tensors[key] for tensors in held]) for key in held[0]}
    stacked = {
        key: held[0][key] if dim is None else torch.stack([tensors[key] for tensors in held])
        for key, dim in dims.items()
    }
    result: Tensor = torch.vmap(first.with_tensors, in_dims=(dims, 0, 0))(stacked, *beside)
    return result.flatten(0, 1)


def _dim(values: Sequence[Tensor]) -> int | None:
    """vmap's axis: None where all members share one constant, else 0 of the stacked tensors."""
    return None if all(value is values[0] for value in values) else 0


def _added(several: Sequence[SiteModification], held: _Held, x: Tensor, h: Tensor) -> Tensor:
    """`modify_together` where every new h is h + s Δh, without vmap: it costs the host more than
    the operations do.
    """
    first, form = several[0], several[0].modification.form
    width = max(one.width for one in several)
    tensors = {
        name: _stacked([one[name] for one in held], form.padded.get(name), width)
        for name in held[0]
        if name != "s"
    }
    x, rows = (values.reshape(len(several), -1, values.shape[-1]) for values in (x, h))
    source = first.modification.insertion.source(x, rows).to(first.dtype)
    return form.add_to(tensors, source, rows, _scales(several, held)).view_as(h)


def _scales(several: Sequence[SiteModification], held: _Held) -> float | Tensor:
    """s, or [members, 1, 1] where members differ in it or learn it."""
    factors = {one.factor for one in several}
    if len(factors) == 1 and None not in factors:
        return several[0].factor or 0.0
    each = [
        own["s"] if one.factor is None else one.scale
        for one, own in zip(several, held, strict=True)
    ]
    return torch.cat(each).view(-1, 1, 1)


def _stacked(values: Sequence[Tensor], axis: int | None, width: int) -> Tensor:
    """Matrices as [members, a, b], vectors as [members, 1, a], padded with zeros along `axis` to
    `width`.
    """
    if axis is not None:
        values = [_padded(value, axis, width - value.shape[axis]) for value in values]
    stacked = torch.stack(list(values))
    return stacked if stacked.ndim == 3 else stacked.unsqueeze(1)


def _padded(value: Tensor, axis: int, missing: int) -> Tensor:
    behind = value.ndim - 1 - axis
    return pad(value, (0, 0) * behind + (0, missing)) if missing else value
