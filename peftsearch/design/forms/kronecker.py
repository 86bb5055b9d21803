"""Compacter: an adapter of Kronecker products (Karimi Mahabadi et al. 2021, arXiv 2106.04647)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.forms.base import Form, Shapes, Source
from peftsearch.design.shapes import SiteShape
from peftsearch.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Kronecker"]


@dataclass(frozen=True)
class Kronecker(Form):
    """Δh = GELU(source W_down) W_up with W = Σᵢ Aᵢ ⊗ (sᵢ tᵢᵀ), i = 1 … n: Compacter (Karimi
    Mahabadi et al. 2021, arXiv 2106.04647, equations 4 and 5).

    Tensors: `a` [n, n, n], the n matrices Aᵢ, shared by all sites and both projections; `down_s`
    [n, d_source/n], `down_t` [n, blocks], `up_s` [n, blocks], `up_t` [n, d_h/n]. The width is a
    number of blocks: the bottleneck has n·blocks units. Begins at Δh = 0 (`up_t` is zero).
    Parameters: n³, and d_source + d_h + 2 n·blocks a site.
    Raises ConfigurationError for an n outside 2 … 64; a site's widths must be divisible by n.

    >>> from peftsearch.design.form import Kronecker
    >>> from peftsearch.design.shapes import SiteShape
    >>> Kronecker(n=2).tensors(SiteShape("layers.0.ffn.out", "ffn.out", 0, d_h=6), 4, width=3)
    {'down_s': (2, 2), 'down_t': (2, 3), 'up_s': (2, 3), 'up_t': (2, 3)}
    """

    n: int = 4

    name: ClassVar[str] = "kronecker"
    width_symbol: ClassVar[str | None] = "blocks"
    typical_lr: ClassVar[float] = 3e-3
    is_projection: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if type(self.n) is not int or not 2 <= self.n <= 64:
            raise ConfigurationError(f"kronecker n {self.n} is not between 2 and 64")

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        n = self.n
        return {
            "down_s": (n, d_source // n),
            "down_t": (n, width),
            "up_s": (n, width),
            "up_t": (n, site.d_h // n),
        }

    def shared(self, sources: Sequence[Source], width: int) -> Shapes:
        return {"a": (self.n, self.n, self.n)}

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        if name == "up_t":
            tensor.zero_()
        else:
            # So that Σᵢ Aᵢ ⊗ sᵢtᵢᵀ has entries of variance one over its fan-in.
            spread = tensor.shape[1] if name.endswith("_s") else self.n
            tensor.normal_(0.0, spread**-0.5, generator=generator)

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        from torch.nn.functional import gelu

        hidden = gelu(_times(source, tensors["a"], tensors["down_s"], tensors["down_t"]))
        return _times(hidden, tensors["a"], tensors["up_s"], tensors["up_t"])

    def max_width(self, site: SiteShape, d_source: int) -> int:
        return max(1, min(d_source, site.d_h) // self.n)

    def why_not_at(self, site: SiteShape, d_source: int) -> str | None:
        if d_source % self.n or site.d_h % self.n:
            return f"{d_source} or {site.d_h} channels are not divisible by n={self.n}"
        return None

    def describe(self) -> str:
        return "" if self.n == 4 else f"n={self.n}"


def _times(x: Tensor, a: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """x Σᵢ aᵢ ⊗ (sᵢ tᵢᵀ), [..., n·q], for x [..., n·p], a [n, n, n], s [n, p], t [n, q].

    The matrix [n·p, n·q] is never formed: a token costs n(np + n² + nq) multiplications.
    """
    from torch import einsum

    read = x.unflatten(-1, (a.shape[1], -1)) @ s.transpose(0, 1)  # [..., j, i]
    mixed = einsum("...ji,ijk->...ki", read, a)
    return (mixed @ t).flatten(-2)
