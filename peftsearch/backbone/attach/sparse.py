"""Diff-pruning: one vector of changes over the whole body stands beside its tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from peftsearch.backbone.attach.body import Substitutes, replace_tensor
from peftsearch.backbone.attach.build import TensorBuilder
from peftsearch.backbone.attach.hard_concrete import ALPHA_RATE, OPEN, SparseDelta
from peftsearch.design.form import Sparse

__all__ = ["attach_sparse"]


def attach_sparse(builder: TensorBuilder, form: Sparse, seed: int, finished: bool) -> None:
    """W + δ in the place of every W: δ of k given entries if `finished`, else trained."""
    model, attachment = builder.backbone.model, builder.attachment
    sources = builder.modification.sources(builder.backbone.shapes)
    frozen = [model.get_parameter(site.key) for site, _ in sources]
    substitutes = Substitutes()
    for tensor in frozen:
        put, undo = replace_tensor(builder.backbone, tensor)
        substitutes.puts.append(put)
        attachment.undo.append(undo)
    entries, k = sum(p.numel() for p in frozen), builder.modification.widest
    delta = (
        _stored(builder, substitutes, entries, k)
        if finished
        else _trained(builder, substitutes, form, seed)
    )

    def compute() -> list[Tensor]:
        parts = delta().split([p.numel() for p in frozen])
        return [
            p.detach() + part.view_as(p).to(p.dtype) for p, part in zip(frozen, parts, strict=True)
        ]

    substitutes.compute = compute
    attachment.undo += substitutes.begin(builder)


def _stored(
    builder: TensorBuilder, substitutes: Substitutes, entries: int, k: int
) -> Callable[[], Tensor]:
    """δ of k values at stored indices."""
    values = builder.parameter("shared/values", builder.empty((k,)).zero_())
    indices = torch.arange(k, device=builder.backbone.device)
    builder.attachment.indices[f"{builder.index}/shared/indices"] = indices
    substitutes.trained += [values, indices]
    return lambda: values.new_zeros(entries).index_put((indices,), values)


def _trained(
    builder: TensorBuilder, substitutes: Substitutes, form: Sparse, seed: int
) -> Callable[[], Tensor]:
    """δ with noisy gates while gradients are kept, its k largest entries otherwise."""
    sources = builder.modification.sources(builder.backbone.shapes)
    trained = form.trained(sources, 0)
    w, log_alpha = (builder.empty(shape).zero_() for shape in trained.values())
    log_alpha.fill_(OPEN)
    sparse = SparseDelta(
        w=builder.parameter("sparse/w", w),
        log_alpha=builder.parameter("sparse/log_alpha", log_alpha, rate=ALPHA_RATE),
        k=builder.modification.widest,
        l0=form.l0,
        seed=seed,
    )
    substitutes.trained += [sparse.w, sparse.log_alpha]
    builder.attachment.sparse.append(sparse)
    builder.attachment.not_stored |= {f"{builder.index}/sparse/{name}" for name in trained}
    builder.attachment.computed.append((f"{builder.index}/shared", sparse.stored))

    def delta() -> Tensor:
        if torch.is_grad_enabled():
            return sparse.sampled()
        indices, values = sparse.kept()
        return torch.zeros_like(sparse.w).index_put((indices,), values)

    return delta
