"""Dimension 3, the insertion form: the source that Δh is computed from (He et al. 2022, Table 1).

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
    """The choice of the vector that a functional form reads, its source."""

    name: ClassVar[str]
    symbol: ClassVar[str]
    """Its sign in a line such as `relu∥ffn.out`."""

    @abstractmethod
    def source_width(self, site: SiteShape) -> int:
        """d_source at a site."""

    @abstractmethod
    def source(self, x: Tensor, h: Tensor) -> Tensor:
        """The source, [batch, tokens, d_source]: x, or h [batch, tokens, d_h]."""


@dataclass(frozen=True)
class Parallel(Insertion):
    """Reads x beside h: the sub-layer's input, the input of the linear layer that computes h, or
    the residual stream.

    LoRA reads the projection's input (for ffn.out that is the d_ff-wide hidden state), a parallel
    adapter the sub-layer's. Where both are one vector only `sublayer_input` is written: at queries,
    keys and values, and at the ffn's hidden state. (In cross-attention keys and values are computed
    from the encoder's states, and that is what is read there.) `residual_stream` is the
    sub-layer's input before its norm, in models that norm it first; He et al.'s code reads it so in
    mBART. Raises ConfigurationError for another value of `reads`.

    >>> from peftsearch.design.insertion import Parallel
    >>> from peftsearch.design.shapes import SiteShape
    >>> site = SiteShape("layers.0.ffn.out", "ffn.out", 0, d_h=8, d_sublayer=8, d_projection=32)
    >>> Parallel().source_width(site), Parallel("projection_input").source_width(site)
    (8, 32)
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
    """Reads h itself, after the sub-layer, as adapters do (Houlsby et al. 2019).

    >>> from peftsearch.design.insertion import Sequential
    >>> Sequential().source(x="sub-layer's input", h="its output")
    'its output'
    """

    name: ClassVar[str] = "sequential"
    symbol: ClassVar[str] = "→"

    def source_width(self, site: SiteShape) -> int:
        return site.d_h

    def source(self, x: Tensor, h: Tensor) -> Tensor:
        return h


INSERTIONS: dict[str, type[Insertion]] = {i.name: i for i in (Parallel, Sequential)}
