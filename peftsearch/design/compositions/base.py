"""The base class of composition functions: (h, Δh) → the new h (He et al. 2022, Table 1).

Axes of tensors as in `forms/base.py`. h is [batch, tokens, d_h]; for a prefix, which is composed
before the heads are joined, [batch, tokens, heads, head_dim].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Add", "Composition", "CompositionContext"]


@dataclass(frozen=True)
class CompositionContext:
    """Everything that a composition may read besides h and Δh."""

    source: Tensor
    """The form's source, [batch, tokens, d_source]; for a prefix the sub-layer's input."""
    width: int = 0
    """r or l at this site."""
    form: Mapping[str, Tensor] | None = None
    """The form's tensors by name."""
    weight: Callable[[], Tensor] | None = None
    """The frozen weight [d_source, d_h] of the linear layer that computes h, if one does."""
    bias: Callable[[], Tensor | None] | None = None
    """Its bias [d_h], or None."""


@dataclass(frozen=True)
class Composition(ABC):
    """A function (h, Δh) → the new h. Its own tensors are never weight-decayed."""

    name: ClassVar[str]
    keeps_identity: ClassVar[bool] = True
    """Whether Δh = 0 leaves h unchanged."""
    reads_source: ClassVar[bool] = False
    """Whether it reads `CompositionContext.source`, which is otherwise not kept for a prefix."""
    closed_at_init: ClassVar[bool] = False
    """Whether it leaves h unchanged before training, whatever Δh is."""

    def tensors(self, site: SiteShape, d_source: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its own tuned tensors at one site."""
        return {}

    def initialise(self, name: str, tensor: Tensor, weight: Callable[[], Tensor]) -> None:
        """Fill one of its tensors in place; `weight()` is the frozen weight [d_source, d_h]."""
        tensor.fill_(1.0)

    @abstractmethod
    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, context: CompositionContext
    ) -> Tensor:
        """The new h, of h's shape; Δh is [batch, tokens, d_h] or, with heads apart, [batch, tokens,
        heads, head_dim].
        """

    def factor(self, width: int) -> float | None:
        """s where the new h is h + s Δh with a fixed number s, so that a form can add it itself;
        None for every other composition.
        """
        return None

    def describe(self) -> str:
        """The composition in one line: `s=4`; empty for plain addition."""
        return ""


@dataclass(frozen=True)
class Add(Composition):
    """h + Δh: adapters, ungated prefixes (He et al. 2022, Table 1).

    Parameters: none.

    >>> import torch
    >>> from peftsearch.design.composition import Add, CompositionContext
    >>> h, delta = torch.ones(1, 3, 6), torch.full((1, 3, 6), 0.5)
    >>> Add().compose({}, h, delta, CompositionContext(source=h)).mean()
    tensor(1.5000)
    """

    name: ClassVar[str] = "add"

    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, context: CompositionContext
    ) -> Tensor:
        return h + delta

    def factor(self, width: int) -> float | None:
        return 1.0
