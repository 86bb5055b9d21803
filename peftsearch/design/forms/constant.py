"""Forms without an input: a constant Δh, and changes of the body's own tensors (full, sparse)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.forms.base import Form, Shapes, Source
from peftsearch.design.shapes import SiteShape
from peftsearch.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Constant", "Dense", "Sparse"]


@dataclass(frozen=True)
class Constant(Form):
    """Δh = b, the same for every token: BitFit (Ben Zaken et al. 2022, arXiv 2106.10199), and with
    place `norm` LN tuning (Zhao et al. 2023, arXiv 2312.11420).

    Tensors: `bias` [d_h]; at a tensor of the body, its tuned part's shape.
    Parameters: d_h a site, or the entries of the body's tensors.

    >>> import torch
    >>> from peftsearch.design.form import Constant
    >>> Constant().delta({"bias": torch.tensor([1.0, 2.0])}, torch.ones(1, 3, 4))  # reads nothing
    tensor([1., 2.])
    """

    name: ClassVar[str] = "constant"
    typical_lr: ClassVar[float] = 3e-3
    decays: ClassVar[bool] = False
    batches: ClassVar[bool] = True

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        return {"bias": site.tensor or (site.d_h,)}

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        tensor.zero_()

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        """b [d_h], which is added to every token by broadcasting."""
        return tensors["bias"]


@dataclass(frozen=True)
class Dense(Form):
    """W + δ with δ an unconstrained tensor, zero at first: full fine-tuning.

    Parameters: every entry of the body's tensors.

    >>> from peftsearch.design.form import Dense
    >>> from peftsearch.design.shapes import SiteShape
    >>> Dense().tensors(SiteShape("fc.weight", "weights", 0, tensor=(6, 4)), d_source=0, width=0)
    {'weight': (6, 4)}
    """

    name: ClassVar[str] = "dense"
    typical_lr: ClassVar[float] = 1e-4

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        return {"weight": site.tensor}

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        tensor.zero_()

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        """δ, of the weight's own shape."""
        return tensors["weight"]


@dataclass(frozen=True)
class Sparse(Form):
    """W + δ with k non-zero entries of δ in the whole body: diff-pruning (Guo et al. 2021, arXiv
    2012.07463).

    In training δ = z ⊙ w, with z a hard-concrete variable (Louizos et al. 2018, arXiv 1712.01312)
    and an L0 penalty on the expected number of open entries. Evaluated, stored and counted are the
    k entries of δ with the largest magnitude; k is the width.
    Tensors: `values` [k], shared by all sites; in training `w` and `log_alpha`, each [entries of
    the body]. Parameters: k. Raises ConfigurationError for an `l0` outside [0, 1).

    >>> from peftsearch.design.form import Sparse
    >>> from peftsearch.design.shapes import SiteShape
    >>> body = [(SiteShape("fc.weight", "weights", 0, tensor=(6, 4)), 0)]
    >>> Sparse().shared(body, width=5), Sparse().trained(body, width=5)
    ({'values': (5,)}, {'w': (24,), 'log_alpha': (24,)})
    """

    l0: float = 1.25e-7
    """Penalty on the loss for each entry that is expected to be open (Guo et al., section 3.1)."""

    name: ClassVar[str] = "sparse"
    width_symbol: ClassVar[str | None] = "k"
    typical_lr: ClassVar[float] = 1e-4
    decays: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if type(self.l0) not in (int, float) or not 0 <= self.l0 < 1:
            raise ConfigurationError(f"sparse l0 {self.l0} is not between 0 and 1")
        object.__setattr__(self, "l0", float(self.l0))

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        return {}

    def shared(self, sources: Sequence[Source], width: int) -> Shapes:
        return {"values": (width,)}

    def trained(self, sources: Sequence[Source], width: int) -> Shapes:
        """w and log α for every entry of the body."""
        entries = sum(prod(site.tensor) for site, _ in sources)
        return {"w": (entries,), "log_alpha": (entries,)}

    def stored_indices(self, width: int) -> int:
        """One for each entry: its place in the body."""
        return width

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        tensor.zero_()

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        """Always raises ConfigurationError: `backbone/attach/sparse.py` computes δ."""
        raise ConfigurationError("a sparse change is computed over the whole body at once")

    def max_width(self, site: SiteShape, d_source: int) -> int:
        return prod(site.tensor)
