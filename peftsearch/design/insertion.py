"""Dimension 3, the insertion form: what Δh is computed from (He et al. 2022, Table 1).

`parallel` reads x, `sequential` reads h itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from peftsearch.design.checks import check_name
from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["INSERTIONS", "Insertion", "Parallel", "Sequential"]


@dataclass(frozen=True)
class Insertion(ABC):
    """Which vector a functional form reads."""

    name: ClassVar[str]
    symbol: ClassVar[str]

    @abstractmethod
    def source_width(self, site: SiteShape) -> int:
        """d_source."""

    @abstractmethod
    def source(self, x: Tensor, h: Tensor) -> Tensor:
        """The vector read, (batch, seq, d_source), given the read input x and h."""


@dataclass(frozen=True)
class Parallel(Insertion):
    """Reads x beside h: the sub-layer's input, the input of the linear layer that computes h, or
    the residual stream.

    LoRA reads the projection's input (for ffn.out that is the d_ff-wide hidden state), a parallel
    adapter the sub-layer's. Where both are one vector only `sublayer_input` is written: at queries,
    keys and values, and at the ffn's hidden state. (In cross-attention keys and values are computed
    from the encoder's states, and that is what is read there.) `residual_stream` is the
    sub-layer's input before its norm, in models that norm it first; He et al.'s code reads it so in
    mBART.
    """

    reads: Literal["sublayer_input", "projection_input", "residual_stream"] = "sublayer_input"

    name: ClassVar[str] = "parallel"
    symbol: ClassVar[str] = "∥"

    def __post_init__(self) -> None:
        known = ("sublayer_input", "projection_input", "residual_stream")
        check_name("reads", self.reads, known)

    def source_width(self, site: SiteShape) -> int:
        return site.d_projection if self.reads == "projection_input" else site.d_sublayer

    def source(self, x: Tensor, h: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Sequential(Insertion):
    """Reads h, after the sub-layer."""

    name: ClassVar[str] = "sequential"
    symbol: ClassVar[str] = "→"

    def source_width(self, site: SiteShape) -> int:
        return site.d_h

    def source(self, x: Tensor, h: Tensor) -> Tensor:
        return h


INSERTIONS: dict[str, type[Insertion]] = {i.name: i for i in (Parallel, Sequential)}
