"""What a composition function is: how Δh joins h (He et al. 2022, Table 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Add", "Composition", "Surroundings"]


@dataclass(frozen=True)
class Surroundings:
    """What a composition may look at besides h and Δh."""

    source: Tensor
    """What Δh was computed from, (batch, seq, d_source); for a prefix the sub-layer's input."""
    width: int = 0
    form: Mapping[str, Tensor] | None = None
    """The form's tensors."""
    weight: Callable[[], Tensor] | None = None
    """The frozen weight (d_source, d_h) of the linear layer that computes h."""
    bias: Callable[[], Tensor | None] | None = None
    """Its bias (d_h,), if it has one."""


@dataclass(frozen=True)
class Composition(ABC):
    """How h and Δh become the new h. Its own tensors are never weight-decayed."""

    name: ClassVar[str]
    keeps_identity: ClassVar[bool] = True
    """Whether Δh = 0 leaves h as it was."""
    reads_source: ClassVar[bool] = False
    """Whether it looks at what Δh was computed from."""
    closed_at_init: ClassVar[bool] = False
    """Whether h is left as it was before training whatever Δh is."""

    def tensors(self, site: SiteShape, d_source: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its own tuned tensors at one site."""
        return {}

    def initialise(self, name: str, tensor: Tensor, weight: Callable[[], Tensor]) -> None:
        """Fill one of them in place; `weight()` is the frozen weight as in `Surroundings`."""
        tensor.fill_(1.0)

    @abstractmethod
    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, around: Surroundings
    ) -> Tensor:
        """The new h, shaped as h."""

    def factor(self, width: int) -> float | None:
        """The number s where the new h is h + s Δh and nothing more; None where it is more."""
        return None

    def describe(self) -> str:
        return ""


@dataclass(frozen=True)
class Add(Composition):
    """h + Δh."""

    name: ClassVar[str] = "add"

    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, around: Surroundings
    ) -> Tensor:
        return h + delta

    def factor(self, width: int) -> float | None:
        return 1.0
