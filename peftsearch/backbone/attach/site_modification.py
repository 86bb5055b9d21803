"""A modification at one site: (x, h) → the new h.

source = insertion(x, h)
delta  = form(source)
h      = composition(h, delta)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from peftsearch.backbone.linear import LinearView
from peftsearch.design.composition import CompositionContext, Scaled
from peftsearch.design.insertion import Parallel
from peftsearch.design.modification import Modification

__all__ = ["SiteModification", "Tensors"]

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
    fused: bool = True
    """Whether the form may scale and add Δh itself (`Form.add_to`)."""

    @cached_property
    def factor(self) -> float | None:
        """s where the new h is h + s Δh and may be computed in one pass; else None."""
        return self.modification.composition.factor(self.width) if self.fused else None

    @property
    def reads_x(self) -> bool:
        """Whether x is the source; else h is."""
        return isinstance(self.modification.insertion, Parallel)

    @cached_property
    def adds(self) -> bool:
        """Whether the new h is h + s Δh, s a number or learned, and may be computed in one pass."""
        learned = self.modification.composition == Scaled("learned")
        return self.fused and (learned or self.factor is not None)

    @cached_property
    def scale(self) -> Tensor:
        """The fixed factor s as [1], on the device of the site's tensors."""
        assert self.factor is not None
        device = next(iter(self.tensors().values())).device
        return torch.full((1,), self.factor, dtype=self.dtype, device=device)

    @cached_property
    def kind(self) -> Hashable:
        """A key, equal for modifications that can be computed side by side: they differ at a site
        in the values of tensors alone, or also in what `side_by_side` makes alike.
        """
        one = self.modification
        if self.adds and one.form.batches:
            return one.form.function, one.insertion, self.dtype, *self._fixed_shapes()
        return one.form, one.insertion, one.composition, self.width, self.dtype

    def _fixed_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names of the form's tensors, with their shapes but for axes that may be padded."""
        padded = self.modification.form.padded
        for name, tensor in self.tensors().items():
            if name != "s":  # a learned scale: others have a fixed one
                shape = tensor.shape
                yield name, tuple(n for i, n in enumerate(shape) if i != padded.get(name))

    @property
    def padded_width(self) -> int:
        """Its width where wider ones of its kind are computed beside it; else 0."""
        return self.width if self.adds and self.modification.form.padded else 0

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
