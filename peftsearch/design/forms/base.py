"""What a functional form is: how Δh is computed (He et al. 2022, Table 1).

A form says which tensors it needs, how they begin, and what Δh is. It knows nothing of where it
sits, what it reads or how its result is added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["LATER", "Form", "Shapes", "Source"]

LATER = {"later": True}
"""Metadata of an option that came after the first configurations were recorded: at its default it
is left out of the JSON, so that their hashes stay what they were.
"""

Shapes = dict[str, tuple[int, ...]]
"""Tensor name → shape."""
Source = tuple[SiteShape, int]
"""A site, and the width of what a form reads there (d_source)."""


@dataclass(frozen=True)
class Form(ABC):
    """How Δh comes about.

    Units: a width is a bottleneck size r, a prefix length l or another count of vectors; what a
    modification costs is linear in it.
    """

    name: ClassVar[str]
    width_symbol: ClassVar[str | None] = None
    """`r`, `l`, ..., or None for a form without a width."""
    typical_lr: ClassVar[float]
    """A learning rate that works for it on most tasks (AdamW)."""
    decays: ClassVar[bool] = True
    """Whether weight decay applies to its tensors."""
    fast: ClassVar[tuple[str, ...]] = ()
    """Tensors that begin at zero behind others that do not: LoRA+ trains them faster."""
    is_projection: ClassVar[bool] = False
    """Whether it is a down- and an up-projection, whatever lies between."""
    renorms: ClassVar[bool] = True
    """At a residual place of a post-norm model, Δ joins the sum and is normed with it (Pfeiffer);
    False: it is added to the normed h itself.
    """

    @abstractmethod
    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        """Names and shapes of the tuned tensors at one site."""

    def shared(self, sources: Sequence[Source], width: int) -> Shapes:
        """Tuned tensors that all sites of one modification share; counted once."""
        return {}

    def trained(self, sources: Sequence[Source], width: int) -> Shapes | None:
        """What is trained in the place of everything that is stored; None: that itself."""
        return None

    def constants(self, sources: Sequence[Source], width: int) -> Shapes:
        """Tensors that are drawn once from a fixed seed and never tuned, stored or counted."""
        return {}

    @abstractmethod
    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        """Fill one tensor in place."""

    def initialise_site(
        self,
        tensors: Mapping[str, Tensor],
        generator: Generator,
        pretrained: Callable[[], Tensor],
    ) -> dict[str, Tensor]:
        """Fill a site's tensors in place; returns those of its constants that depend on the site.

        `pretrained()` is the frozen weight at the site: (d_source, d_h) of the linear layer that
        computes h, (vocabulary, d) of the embeddings.
        """
        for name, tensor in tensors.items():
            self.initialise(name, tensor, generator)
        return {}

    @abstractmethod
    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        """Δh for a source (batch, seq, d_source): (batch, seq, d_h).

        `tensors` holds the site's own, the shared ones and the constants.
        """

    def add_to(
        self, tensors: Mapping[str, Tensor], source: Tensor, h: Tensor, scale: float
    ) -> Tensor:
        """h + scale Δh, shaped as h and in its precision; a form may compute it in fewer passes."""
        delta = self.delta(tensors, source).to(h.dtype)
        return h + (delta if scale == 1 else delta * scale)

    def max_width(self, site: SiteShape, d_source: int) -> int:
        """A larger width adds no capacity."""
        return min(d_source, site.d_h)

    def why_not_at(self, site: SiteShape, d_source: int) -> str | None:
        """Why a site's sizes cannot take it, or None."""
        return None

    @property
    def identity_at_init(self) -> bool:
        """Whether Δh is zero before training, but for rounding."""
        return True

    def describe(self) -> str:
        """Options other than the usual ones, for one line: `bias, pissa`."""
        return ""
