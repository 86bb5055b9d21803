"""DoRA: magnitude and direction tuned separately (Liu et al. 2024, arXiv 2402.09353)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.checks import positive_number
from peftsearch.design.compositions.base import Composition, CompositionContext
from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Dora"]


@dataclass(frozen=True)
class Dora(Composition):
    """m ⊙ (xW + s Δh) / ‖W + s W_down W_up‖ + the layer's bias: DoRA (Liu et al. 2024, arXiv
    2402.09353, equation 5).

    The norm is over the inputs of each output channel, and no gradient passes it (section 4.3).
    Tensor: `m` [d_h], ‖W‖ at first, so that h is unchanged. Parameters: d_h a site.
    A channel whose norm is 0, as in pruned models, has no direction: until Δh gives it one, its
    factor m / 0 is taken to be 1, and its m gets no gradient.
    Raises ConfigurationError for a scale `s` that is no positive number.

    >>> import torch
    >>> from peftsearch.design.composition import CompositionContext, Dora
    >>> W, x = torch.tensor([[3.0], [4.0]]), torch.ones(1, 1, 2)
    >>> lora = {"down": torch.zeros(2, 1), "up": torch.zeros(1, 1)}
    >>> context = CompositionContext(x, 1, form=lora, weight=lambda: W)
    >>> Dora().compose({"m": torch.tensor([10.0])}, x @ W, torch.zeros(1, 1, 1), context)  # ‖W‖ = 5
    tensor([[[14.]]])
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
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, context: CompositionContext
    ) -> Tensor:
        """The new h [batch, tokens, d_h], from h = xW + bias, which the layer has computed."""
        assert context.form is not None
        assert context.weight is not None
        down, up, m = context.form["down"], context.form["up"], tensors["m"]
        weight = context.weight().to(down.dtype)
        norm: Tensor = (weight + self.s * (down.detach() @ up.detach())).norm(dim=0)
        factor = _quotient(m, norm)
        bias = context.bias() if context.bias else None
        plain = h if bias is None else h - bias
        # Summed in the tuned tensors' precision (fp32): factor − 1 is near 0, and bf16, with 8 bits
        # of mantissa, would round it away before it is multiplied.
        return h + ((factor - 1) * plain + factor * self.s * delta).to(h.dtype)

    def describe(self) -> str:
        return f"DoRA s={self.s:.4g}"


def _quotient(m: Tensor, norm: Tensor) -> Tensor:
    """m / norm [d_h], and 1 where the norm is 0: neither value nor gradient is NaN there."""
    none = norm == 0
    # masked_fill, not where: a number would be sent to the GPU, which no CUDA graph can record.
    return (m / norm.masked_fill(none, 1.0)).masked_fill(none, 1.0)
