"""A modification at one site: (x, h) → the new h, for one configuration or several at once.

source = insertion(x, h)
delta  = form(source)
h      = composition(h, delta)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peftsearch.backbone.linear import LinearView
from peftsearch.design.composition import CompositionContext
from peftsearch.design.modification import Modification

__all__ = ["SiteModification", "Tensors", "modify_together"]

Tensors = Callable[[], Mapping[str, Tensor]]
"""Gives a site's tensors by name, in every forward: a re-parametrised prefix computes them."""


@dataclass(frozen=True, eq=False)
class SiteModification:
    """(x [batch, tokens, d_source], h [batch, tokens, d_h]) → the new h, of h's shape and dtype."""

    modification: Modification
    tensors: Tensors
    width: int
    dtype: torch.dtype
    """The precision in which Δh is computed."""
    linear: LinearView | None
    """The linear layer that computes h, if one does."""
    factor: float | None = None
    """s where the new h is h + s Δh and may be computed in one pass; else None."""

    @property
    def kind(self) -> Hashable:
        """A key, equal for modifications that differ at a site in the values of tensors alone."""
        one = self.modification
        return one.form, one.insertion, one.composition, self.width, self.dtype

    def __call__(self, x: Tensor, h: Tensor) -> Tensor:
        return self.with_tensors(self.tensors(), x, h)

    def with_tensors(self, held: Mapping[str, Tensor], x: Tensor, h: Tensor) -> Tensor:
        """The new h [batch, tokens, d_h], computed with `held` in place of its own tensors.

        A pure function of its arguments, as vmap needs.
        """
        form, linear = self.modification.form, self.linear
        source = self.modification.insertion.source(x, h).to(self.dtype)
        if self.factor is not None:
            return form.add_to(held, source, h, self.factor)
        delta = form.delta(held, source).to(h.dtype)
        weight, bias = (linear.weight, linear.bias) if linear else (None, None)
        context = CompositionContext(source, self.width, held, weight, bias)
        return self.modification.composition.compose(held, h, delta, context)


def modify_together(several: Sequence[SiteModification], x: Tensor, h: Tensor) -> Tensor:
    """The new h [members, texts, ...] of several of one `kind`, of x and h alike: every operation
    runs once on their stacked tensors (torch.vmap), instead of once a member.
    """
    held = [one.tensors() for one in several]
    dims = {key: _dim([tensors[key] for tensors in held]) for key in held[0]}
    stacked = {
        key: held[0][key] if dim is None else torch.stack([tensors[key] for tensors in held])
        for key, dim in dims.items()
    }
    result: Tensor = torch.vmap(several[0].with_tensors, in_dims=(dims, 0, 0))(stacked, x, h)
    return result


def _dim(values: Sequence[Tensor]) -> int | None:
    """vmap's axis: None where all members share one constant, else 0 of the stacked tensors."""
    return None if all(value is values[0] for value in values) else 0
