"""VeRA: random projections, tuned by two vectors (Kopiczko et al. 2024, arXiv 2310.11454)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.forms.base import Form, Shapes, Source
from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Vera"]


@dataclass(frozen=True)
class Vera(Form):
    """source A Λ_d B Λ_b (equation 2 there, transposed): A and B are random, frozen and the same at
    every site (sliced to its sizes); d (r) begins at 0.1, b (d_h) at zero.
    """

    name: ClassVar[str] = "vera"
    width_symbol: ClassVar[str | None] = "r"
    typical_lr: ClassVar[float] = 1e-2
    decays: ClassVar[bool] = False

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        return {"d": (width,), "b": (site.d_h,)}

    def constants(self, sources: Sequence[Source], width: int) -> Shapes:
        d_source = max(d for _, d in sources)
        return {"A": (d_source, width), "B": (width, max(site.d_h for site, _ in sources))}

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        if name in ("A", "B"):  # Kaiming-uniform over what each reads
            bound = math.sqrt(3 / tensor.shape[0])
            tensor.uniform_(-bound, bound, generator=generator)
        else:
            tensor.fill_(0.1 if name == "d" else 0.0)

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        d, b = tensors["d"], tensors["b"]
        down = tensors["A"][: source.shape[-1], : len(d)]
        up = tensors["B"][: len(d), : len(b)]
        return (source @ down * d) @ up * b
