"""Diff-pruning: every tensor of the body plus its part of one sparse vector δ."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from peftsearch.backbone.attach.body import Replacement, Substitutes
from peftsearch.backbone.attach.build import TensorBuilder
from peftsearch.backbone.attach.hard_concrete import ALPHA_RATE, OPEN, SparseDelta
from peftsearch.design.form import Sparse

__all__ = ["attach_sparse"]


def attach_sparse(builder: TensorBuilder, form: Sparse, seed: int, finished: bool) -> None:
    """Replace every W of the body by W + δ, with δ one vector [entries of the body].

    `finished`: δ has k stored values at stored indices; else it is trained behind gates.
    """
    model, attachment = builder.backbone.model, builder.attachment
    sources = builder.modification.sources(builder.backbone.shapes)
    frozen = [model.get_parameter(site.key) for site, _ in sources]
    substitutes = Substitutes(builder.backbone.hooks)
    for tensor in frozen:
        replacement = Replacement.of(builder.backbone, tensor)
        substitutes.replaced.append(replacement)
        attachment.undo.append(replacement.restore)
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

    substitutes.compute_all = compute
    attachment.undo += substitutes.begin(builder)


def _stored(
    builder: TensorBuilder, substitutes: Substitutes, entries: int, k: int
) -> Callable[[], Tensor]:
    """A function that gives δ [entries] of k values at stored indices; both are filled in later,
    from a file.
    """
    values = builder.parameter("shared/values", builder.empty((k,)).zero_())
    indices = torch.arange(k, device=builder.backbone.device)
    builder.attachment.indices[f"{builder.index}/shared/indices"] = indices
    substitutes.trained += [values, indices]
    return lambda: values.new_zeros(entries).index_put((indices,), values)


def _trained(
    builder: TensorBuilder, substitutes: Substitutes, form: Sparse, seed: int
) -> Callable[[], Tensor]:
    """A function that gives δ [entries]: behind noisy gates with gradients, else the k largest."""
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
