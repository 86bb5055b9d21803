"""(IA)³: h rescaled, channel by channel (Liu et al. 2022, arXiv 2205.05638)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.forms.base import Form, Shapes
from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Rescale"]


@dataclass(frozen=True)
class Rescale(Form):
    """Δh = h ⊙ (ℓ − 1), so that h + Δh = ℓ ⊙ h: (IA)³ (Liu et al. 2022, arXiv 2205.05638, section
    3.3).

    Tensors: `l` [d_h], one at first. Parameters: d_h a site.

    >>> import torch
    >>> from peftsearch.design.form import Rescale
    >>> Rescale().delta({"l": torch.tensor([1.0, 3.0])}, torch.ones(1, 1, 2))
    tensor([[[0., 2.]]])
    """

    name: ClassVar[str] = "rescale"
    typical_lr: ClassVar[float] = 5e-3
    decays: ClassVar[bool] = False
    batches: ClassVar[bool] = True

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        return {"l": (site.d_h,)}

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        tensor.fill_(1.0)

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        return source * (tensors["l"] - 1)
