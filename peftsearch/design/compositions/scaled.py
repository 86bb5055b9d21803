"""Scaled addition: by a fixed number, a learned number, or a number that follows the rank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from peftsearch.design.checks import positive_number
from peftsearch.design.compositions.base import Composition, CompositionContext
from peftsearch.design.shapes import SiteShape
from peftsearch.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RankStabilised", "Scaled"]


@dataclass(frozen=True)
class Scaled(Composition):
    """h + s Δh, with s fixed, or one learned number a site that begins at 1: LoRA's α/r (Hu et al.
    2022, section 4.1), the scaled parallel adapter (He et al. 2022, Table 1).

    Tensor: `s` [1] where it is learned. Parameters: 1 a site, or none.
    Raises ConfigurationError for an s that is no positive number, and for s = 1, which is `Add`.

    >>> import torch
    >>> from peftsearch.design.composition import CompositionContext, Scaled
    >>> h, delta = torch.ones(1, 3, 6), torch.ones(1, 3, 6)
    >>> Scaled(4).compose({}, h, delta, CompositionContext(h)).mean()
    tensor(5.)
    """

    s: float | Literal["learned"] = "learned"

    name: ClassVar[str] = "scaled"

    def __post_init__(self) -> None:
        if self.s == "learned":
            return
        if isinstance(self.s, bool) or not isinstance(self.s, (int, float)):
            raise ConfigurationError(f"scale s={self.s} must be a positive number or 'learned'")
        if not 0 < self.s < float("inf"):
            raise ConfigurationError(f"scale s={self.s} must be a positive number or 'learned'")
        if self.s == 1:
            raise ConfigurationError("scale s=1 is plain addition: write composition 'add'")
        object.__setattr__(self, "s", float(self.s))

    def tensors(self, site: SiteShape, d_source: int) -> dict[str, tuple[int, ...]]:
        return {"s": (1,)} if self.s == "learned" else {}

    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, context: CompositionContext
    ) -> Tensor:
        # Beside a half-precision body Δh has h's dtype; an fp32 scale would promote the new h.
        return h + delta * (tensors["s"].to(delta.dtype) if self.s == "learned" else self.s)

    def factor(self, width: int) -> float | None:
        return None if self.s == "learned" else self.s

    def describe(self) -> str:
        return f"s={self.s if self.s == 'learned' else format(self.s, '.4g')}"


@dataclass(frozen=True)
class RankStabilised(Composition):
    """h + α/√r Δh: rsLoRA (Kalajdzievski 2023, arXiv 2312.03732, theorem 3.2).

    With one width for all layers this is `Scaled` with s = α/√r, and a `Modification` writes it so;
    with a width a layer, every layer has its own s. Parameters: none.
    Raises ConfigurationError for an `alpha` that is no positive number.

    >>> from peftsearch.design.composition import RankStabilised
    >>> RankStabilised(8).scale(width=16)
    2.0
    """

    alpha: float = 8.0

    name: ClassVar[str] = "rank_stabilised"

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", positive_number("alpha", self.alpha))

    def scale(self, width: int) -> float:
        """α/√r for a width r."""
        return self.alpha / math.sqrt(width)

    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, context: CompositionContext
    ) -> Tensor:
        return h + delta * self.scale(context.width)

    def factor(self, width: int) -> float | None:
        return self.scale(width)

    def describe(self) -> str:
        return f"α={self.alpha:.4g}/√r"
