"""LoReFT: h edited within a low-rank subspace (Wu et al. 2024, arXiv 2404.03592)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.forms.base import Form, Shapes
from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Loreft"]


@dataclass(frozen=True)
class Loreft(Form):
    """Δh = Rᵀ(W h + b − R h), R [r, d_h] with orthonormal rows: LoReFT (Wu et al. 2024, arXiv
    2404.03592, equation 2), at every token.

    Tensors: `rotation` [d_h, r], any matrix, of which Rᵀ is the Q of its QR decomposition, so that
    R stays orthonormal; `source` [d_h, r], which is Wᵀ; `source_bias` [r], which is b.
    Parameters: 2 r d_h + r a site.
    W begins as R and b at zero, so Δh is zero at first: exactly where the decomposition gives the
    same Q again, else (on a GPU) up to its rounding.

    >>> import torch
    >>> from peftsearch.design.form import Loreft
    >>> tensors = {"rotation": torch.eye(3, 1), "source": torch.zeros(3, 1),
    ...     "source_bias": torch.ones(1)}
    >>> Loreft().delta(tensors, torch.full((1, 1, 3), 5.0)).sum()  # along R's row, from 5 to 1
    tensor(-4.)
    """

    name: ClassVar[str] = "loreft"
    width_symbol: ClassVar[str | None] = "r"
    typical_lr: ClassVar[float] = 1e-3
    decays: ClassVar[bool] = False
    is_capturable: ClassVar[bool] = False  # cuSOLVER's QR allocates and waits on the host
    renorms: ClassVar[bool] = False

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        return {"rotation": (site.d_h, width), "source": (site.d_h, width), "source_bias": (width,)}

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        if name == "source_bias":
            tensor.zero_()
        else:
            tensor.normal_(0.0, 1.0, generator=generator)

    def initialise_site(
        self,
        tensors: Mapping[str, Tensor],
        generator: Generator,
        pretrained: Callable[[], Tensor],
    ) -> dict[str, Tensor]:
        """A random orthonormal R, and W = R, so that Δh begins at zero."""
        super().initialise_site(tensors, generator, pretrained)
        rotation = _orthonormal(tensors["rotation"])
        tensors["rotation"].copy_(rotation)
        # Decomposed once more, as `delta` will: W − R is then zero to the last bit.
        tensors["source"].copy_(_orthonormal(tensors["rotation"]))
        return {}

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        rotation = _orthonormal(tensors["rotation"])
        # (W − R) h, not W h − R h: libraries sum products of matrices that lie differently in
        # memory in different orders, and two equal matrices would give no zero.
        moved = source @ (tensors["source"] - rotation) + tensors["source_bias"]
        return moved @ rotation.transpose(0, 1)


def _orthonormal(columns: Tensor) -> Tensor:
    """Q [d_h, r] of the QR decomposition of [d_h, r], signed so that an orthonormal matrix is its
    own Q (LAPACK leaves the signs of R's diagonal free).
    """
    from torch import where
    from torch.linalg import qr

    q, r = qr(columns)
    signed: Tensor = where(r.diagonal() < 0, -q, q)
    return signed
