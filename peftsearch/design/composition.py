"""Dimension 4, the composition function: how Δh joins h (He et al. 2022, Table 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from peftsearch.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["COMPOSITIONS", "Add", "Composition", "Gated", "Scaled"]


@dataclass(frozen=True)
class Composition(ABC):
    """How h and Δh become the new h. Its own tensors are never weight-decayed."""

    name: ClassVar[str]
    keeps_identity: ClassVar[bool] = True
    """Whether Δh = 0 leaves h as it was."""

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its own tuned tensors at one site; they begin at one."""
        return {}

    @abstractmethod
    def compose(self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor) -> Tensor:
        """The new h, shaped as h."""

    def describe(self) -> str:
        return ""


@dataclass(frozen=True)
class Add(Composition):
    """h + Δh."""

    name: ClassVar[str] = "add"

    def compose(self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor) -> Tensor:
        return h + delta


@dataclass(frozen=True)
class Scaled(Composition):
    """h + s Δh, with s fixed or one learned number a site that begins at 1."""

    s: float | Literal["learned"] = "learned"

    name: ClassVar[str] = "scaled"

    def __post_init__(self) -> None:
        if self.s == "learned":
            return
        if not isinstance(self.s, (int, float)) or not 0 < self.s < float("inf"):
            raise ConfigurationError(f"scale s={self.s} must be a positive number or 'learned'")
        if self.s == 1:
            raise ConfigurationError("scale s=1 is plain addition: write composition 'add'")
        object.__setattr__(self, "s", float(self.s))

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {"s": (1,)} if self.s == "learned" else {}

    def compose(self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor) -> Tensor:
        # Δh may come in half precision, in which the fp32 scale must not leave it.
        return h + delta * (tensors["s"].to(delta.dtype) if self.s == "learned" else self.s)

    def describe(self) -> str:
        return f"s={self.s if self.s == 'learned' else format(self.s, '.4g')}"


@dataclass(frozen=True)
class Gated(Composition):
    """(1−λ) h + λ Δh with the exact gate of prefix tuning (He et al. 2022, equations 7 and 8).

    λ = Σexp(q P_kᵀ) / (Σexp(q P_kᵀ) + Σexp(q Kᵀ)) for each head and token. Attending over prefix
    and tokens together computes exactly this, in one softmax, and that is how `backbone/` does it.
    """

    name: ClassVar[str] = "gated"
    keeps_identity: ClassVar[bool] = False

    def compose(self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor) -> Tensor:
        raise ConfigurationError("the exact gate is computed inside attention, with the softmax")


COMPOSITIONS: dict[str, type[Composition]] = {c.name: c for c in (Add, Scaled, Gated)}
