"""The base class of functional forms: the function that computes Δh (He et al. 2022, Table 1).

A form names its tensors with their shapes and initial values, and computes Δh. It knows nothing of
where it sits, what it reads or how its result is added.

Axes of tensors: batch (texts), tokens, d_source (width of what the form reads), d_h (width of h),
r or l (the width of the modification), heads, kv_heads, head_dim.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["OMIT_DEFAULT", "Form", "Shapes", "Source"]

OMIT_DEFAULT = {"omit_default": True}
"""Metadata of an option that came after the first configurations were recorded: at its default it
is left out of the JSON, so that their hashes stay what they were.
"""

Shapes = dict[str, tuple[int, ...]]
"""Tensor name → shape."""
Source = tuple[SiteShape, int]
"""A site, and the width of the vector that a form reads there (d_source)."""


@dataclass(frozen=True)
class Form(ABC):
    """A function source → Δh with tuned tensors.

    Units: a width is a bottleneck size r, a prefix length l or another count of vectors; the
    number of tuned parameters is linear in it.
    """

    name: ClassVar[str]
    width_symbol: ClassVar[str | None] = None
    """`r`, `l`, ..., or None for a form without a width."""
    typical_lr: ClassVar[float]
    """A learning rate that works for it on most tasks (AdamW)."""
    decays: ClassVar[bool] = True
    """Whether weight decay applies to its tensors."""
    fast: ClassVar[tuple[str, ...]] = ()
    """Up-projections, which begin at zero behind down-projections that do not: their learning rate
    is multiplied by LoRA+'s ratio (`Training.up_lr_ratio`).
    """
    is_projection: ClassVar[bool] = False
    """Whether it is a down- and an up-projection; a function may lie between the two."""
    is_capturable: ClassVar[bool] = True
    """Whether a GPU can compute Δh within a CUDA graph: not if the host waits for a part of it."""
    batches: ClassVar[bool] = False
    """Whether `add_to` also takes several members' tensors at once: matrices [members, a, b],
    vectors [members, 1, a], source and h [members, tokens, channels].
    """
    padded: ClassVar[Mapping[str, int]] = {}
    """Tensor name → its axis of length r, where zeros beyond r would change nothing; empty for a
    form whose widths cannot be made alike so.
    """
    renorms: ClassVar[bool] = True
    """Whether, at a residual place of a post-norm model, Δh joins the sum before the norm, so that
    both are normed (Pfeiffer et al. 2021); False: it is added to the normed h.
    """

    @abstractmethod
    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        """Names and shapes of the tuned tensors at one site."""

    def shared(self, sources: Sequence[Source], width: int) -> Shapes:
        """Tuned tensors that all sites of one modification share; counted once."""
        return {}

    def trained(self, sources: Sequence[Source], width: int) -> Shapes | None:
        """Tensors trained in place of all the stored ones; None where the stored ones are trained.

        A re-parametrised prefix trains an MLP and stores the keys and values that it computes.
        """
        return None

    def constants(self, sources: Sequence[Source], width: int) -> Shapes:
        """Random tensors drawn once from a fixed seed: never tuned, stored or counted (VeRA's)."""
        return {}

    def stored_indices(self, width: int) -> int:
        """Number of indices into the body, int64, that are stored beside the tensors."""
        return 0

    @abstractmethod
    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        """Fill one tensor in place, of the shape given in `tensors`, `shared`, `trained` or
        `constants`.
        """

    def initialise_site(
        self,
        tensors: Mapping[str, Tensor],
        generator: Generator,
        pretrained: Callable[[], Tensor],
    ) -> dict[str, Tensor]:
        """Fill a site's tensors in place; returns the constants that depend on the site (PiSSA's).

        `pretrained()` is the frozen weight at the site: [d_source, d_h] of the linear layer that
        computes h, [vocabulary, d_h] of the embeddings.
        """
        for name, tensor in tensors.items():
            self.initialise(name, tensor, generator)
        return {}

    @abstractmethod
    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        """Δh [batch, tokens, d_h] for a source [batch, tokens, d_source].

        `tensors` holds the site's own, the shared ones and the constants.
        """

    def add_to(
        self, tensors: Mapping[str, Tensor], source: Tensor, h: Tensor, scale: float | Tensor
    ) -> Tensor:
        """h + scale Δh for h [batch, tokens, d_h], of h's shape and dtype; `scale` is a number, or
        [members, 1, 1] beside several members' tensors.

        A form may compute it in fewer passes over memory than `delta`, product and sum take.
        """
        delta = self.delta(tensors, source)
        if not isinstance(scale, float | int):
            return h + (delta * scale).to(h.dtype)  # beside a half-precision h the scale is fp32
        delta = delta.to(h.dtype)
        return h + (delta if scale == 1 else delta * scale)

    @property
    def function(self) -> Hashable:
        """A key, equal for forms that compute the same function of their tensors."""
        return self

    def max_width(self, site: SiteShape, d_source: int) -> int:
        """The width beyond which more adds no capacity: the rank of a matrix [d_source, d_h]."""
        return min(d_source, site.d_h)

    def why_not_at(self, site: SiteShape, d_source: int) -> str | None:
        """The reason why a site's sizes cannot take this form, or None."""
        return None

    @property
    def identity_at_init(self) -> bool:
        """Whether Δh is zero before training, but for rounding."""
        return True

    def describe(self) -> str:
        """Options other than the usual ones, for one line: `bias, pissa`."""
        return ""
