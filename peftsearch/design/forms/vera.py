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
    """Δh = source A Λ_d B Λ_b with A and B random and frozen: VeRA (Kopiczko et al. 2024, arXiv
    2310.11454, equation 2, transposed).

    A [d_source, r] and B [r, d_h] are the same at every site, sliced to its widths, and drawn from
    a fixed seed. Tensors: `d` [r], 0.1 at first; `b` [d_h], zero at first.
    Parameters: r + d_h a site.

    >>> import torch
    >>> from peftsearch.design.form import Vera
    >>> tensors = {"A": torch.ones(4, 2), "B": torch.ones(2, 6), "d": torch.ones(2)}
    >>> Vera().delta(tensors | {"b": torch.ones(6)}, torch.ones(1, 3, 4)).shape
    torch.Size([1, 3, 6])
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
        if name in ("A", "B"):  # Kaiming-uniform over the width that each reads
            bound = math.sqrt(3 / tensor.shape[0])
            tensor.uniform_(-bound, bound, generator=generator)
        else:
            tensor.fill_(0.1 if name == "d" else 0.0)

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        """Δh [batch, tokens, d_h]; A and B are as wide as the widest site, and cut to this one."""
        d, b = tensors["d"], tensors["b"]
        down = tensors["A"][: source.shape[-1], : len(d)]
        up = tensors["B"][: len(d), : len(b)]
        return (source @ down * d) @ up * b
