"""DoRA: direction and magnitude tuned apart (Liu et al. 2024, arXiv 2402.09353)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.checks import positive_number
from peftsearch.design.compositions.base import Composition, Surroundings
from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Dora"]


@dataclass(frozen=True)
class Dora(Composition):
    """m ⊙ (xW + s Δh) / ‖W + s W_down W_up‖, norms over the inputs of each output channel, and the
    layer's bias (equation 5 there). m begins as ‖W‖, so h is left as it was. No gradient passes the
    norm (section 4.3). A channel whose norm is 0, as of pruned models, has no direction: until Δh
    gives it one, its factor m / 0 is taken to be 1, and its m gets no gradient.
    """

    s: float = 1.0

    name: ClassVar[str] = "dora"

    def __post_init__(self) -> None:
        object.__setattr__(self, "s", positive_number("scale s", self.s))

    def tensors(self, site: SiteShape, d_source: int) -> dict[str, tuple[int, ...]]:
        return {"m": (site.d_h,)}

    def initialise(self, name: str, tensor: Tensor, weight: Callable[[], Tensor]) -> None:
        tensor.copy_(weight().to(tensor.dtype).norm(dim=0))

    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, around: Surroundings
    ) -> Tensor:
        assert around.form is not None
        assert around.weight is not None
        down, up, m = around.form["down"], around.form["up"], tensors["m"]
        weight = around.weight().to(down.dtype)
        norm: Tensor = (weight + self.s * (down.detach() @ up.detach())).norm(dim=0)
        factor = _quotient(m, norm)
        bias = around.bias() if around.bias else None
        plain = h if bias is None else h - bias
        # In the tuned tensors' precision: half of it would round factor − 1 away.
        return h + ((factor - 1) * plain + factor * self.s * delta).to(h.dtype)

    def describe(self) -> str:
        return f"DoRA s={self.s:.4g}"


def _quotient(m: Tensor, norm: Tensor) -> Tensor:
    """m / norm, and 1 where the norm is 0: neither the value nor the gradient is NaN there."""
    none = norm == 0
    # masked_fill, not where: a number would be sent to the GPU, which no CUDA graph can record.
    return (m / norm.masked_fill(none, 1.0)).masked_fill(none, 1.0)
