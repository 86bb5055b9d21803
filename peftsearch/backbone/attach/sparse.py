"""Diff-pruning: one vector of changes over the whole body stands beside its tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from peftsearch.backbone.attach.body import Stand, replace_tensor
from peftsearch.backbone.attach.build import Making
from peftsearch.backbone.attach.hard_concrete import ALPHA_RATE, OPEN, SparseDelta
from peftsearch.design.form import Sparse

__all__ = ["attach_sparse"]


def attach_sparse(making: Making, form: Sparse, seed: int, finished: bool) -> None:
    """W + δ in the place of every W: δ of k given entries if `finished`, else trained."""
    model, attachment = making.backbone.model, making.attachment
    sources = making.modification.sources(making.backbone.shapes)
    frozen = [model.get_parameter(site.key) for site, _ in sources]
    stand = Stand()
    for tensor in frozen:
        put, undo = replace_tensor(making.backbone, tensor)
        stand.puts.append(put)
        attachment.undo.append(undo)
    entries, k = sum(p.numel() for p in frozen), making.modification.widest
    delta = _given(making, stand, entries, k) if finished else _trained(making, stand, form, seed)

    def compute() -> list[Tensor]:
        parts = delta().split([p.numel() for p in frozen])
        return [
            p.detach() + part.view_as(p).to(p.dtype) for p, part in zip(frozen, parts, strict=True)
        ]

    stand.compute = compute
    attachment.undo += stand.begin(making)


def _given(making: Making, stand: Stand, entries: int, k: int) -> Callable[[], Tensor]:
    """δ of k values at stored indices."""
    values = making.tuned("shared/values", making.empty((k,)).zero_())
    indices = torch.arange(k, device=making.backbone.device)
    making.attachment.indices[f"{making.index}/shared/indices"] = indices
    stand.trained += [values, indices]
    return lambda: values.new_zeros(entries).index_put((indices,), values)


def _trained(making: Making, stand: Stand, form: Sparse, seed: int) -> Callable[[], Tensor]:
    """δ with noisy gates while gradients are kept, its k largest entries otherwise."""
    sources = making.modification.sources(making.backbone.shapes)
    trained = form.trained(sources, 0)
    w, log_alpha = (making.empty(shape).zero_() for shape in trained.values())
    log_alpha.fill_(OPEN)
    sparse = SparseDelta(
        w=making.tuned("sparse/w", w),
        log_alpha=making.tuned("sparse/log_alpha", log_alpha, rate=ALPHA_RATE),
        k=making.modification.widest,
        l0=form.l0,
        seed=seed,
    )
    stand.trained += [sparse.w, sparse.log_alpha]
    making.attachment.sparse.append(sparse)
    making.attachment.not_stored |= {f"{making.index}/sparse/{name}" for name in trained}
    making.attachment.computed.append((f"{making.index}/shared", sparse.stored))

    def delta() -> Tensor:
        if torch.is_grad_enabled():
            return sparse.sampled()
        indices, values = sparse.kept()
        return torch.zeros_like(sparse.w).index_put((indices,), values)

    return delta
