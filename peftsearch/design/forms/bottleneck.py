"""Bottlenecks: down to r, a nonlinearity, and up again. LoRA's and the adapters' forms."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from peftsearch.design.checks import check_flag, check_name
from peftsearch.design.forms.base import Form, Shapes
from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Bottleneck", "Gelu", "Linear", "Relu", "Silu", "Swiglu"]


@dataclass(frozen=True)
class Bottleneck(Form):
    """f(source W_down) W_up, both without biases unless asked (the paper's counts leave them out).

    `init`: `lora` begins at Δh = 0 (Kaiming-uniform(√5) down, zero up), `bert` at N(0, 0.02) for
    both, nearly zero.
    """

    init: Literal["lora", "bert", "pissa"] = "lora"
    bias: bool = False

    width_symbol: ClassVar[str | None] = "r"
    typical_lr: ClassVar[float] = 1e-3
    fast: ClassVar[tuple[str, ...]] = ("up",)
    is_projection: ClassVar[bool] = True
    INITS: ClassVar[tuple[str, ...]] = ("lora", "bert")

    def __post_init__(self) -> None:
        check_name("init", self.init, self.INITS)
        check_flag("bias", self.bias)

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        shapes: Shapes = {"down": (d_source, width), "up": (width, site.d_h)}
        if self.bias:
            shapes |= {"down_bias": (width,), "up_bias": (site.d_h,)}
        return shapes

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        if name.endswith("bias") or (self.init == "lora" and name == "up"):
            tensor.zero_()
        elif self.init == "bert":
            tensor.normal_(0.0, 0.02, generator=generator)
        else:
            bound = 1 / math.sqrt(tensor.shape[0])  # kaiming_uniform(a=√5) over fan-in
            tensor.uniform_(-bound, bound, generator=generator)

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        result = self.hidden(tensors, source) @ tensors["up"]
        return result + tensors["up_bias"] if self.bias else result

    def add_to(
        self, tensors: Mapping[str, Tensor], source: Tensor, h: Tensor, scale: float
    ) -> Tensor:
        """One product that adds to h, where shapes, precision and beginning allow it: of a PiSSA
        both products are subtracted first, so that Δh begins at exactly zero.
        """
        up, tokens = tensors["up"], h.shape[:-1]
        plain = h.is_contiguous() and h.dtype == up.dtype and source.shape[:-1] == tokens
        if not plain or self.init == "pissa":
            return super().add_to(tensors, source, h, scale)
        from torch import addmm

        hidden = self.hidden(tensors, source).flatten(0, -2)
        result = addmm(h.flatten(0, -2), hidden, up, alpha=scale).view_as(h)
        return result + scale * tensors["up_bias"] if self.bias else result

    def hidden(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        """The bottleneck after its nonlinearity, (batch, seq, r)."""
        down = source @ tensors["down"]
        return self.nonlinearity(down + tensors["down_bias"] if self.bias else down)

    @abstractmethod
    def nonlinearity(self, hidden: Tensor) -> Tensor:
        """Applied to the bottleneck (batch, seq, r)."""

    @property
    def identity_at_init(self) -> bool:
        return self.init != "bert"

    def describe(self) -> str:
        return ", ".join(["pissa"] * (self.init == "pissa") + ["bias"] * self.bias)


@dataclass(frozen=True)
class Linear(Bottleneck):
    """source W_down W_up: LoRA's form (Hu et al., arXiv 2106.09685).

    `init: pissa` (Meng et al. 2024, arXiv 2404.02948) begins with the r largest singular vectors of
    the linear layer beside it: W_down W_up − A₀B₀ with both products equal at first, so that W
    itself stays as it was.
    """

    name: ClassVar[str] = "linear"
    INITS: ClassVar[tuple[str, ...]] = ("lora", "bert", "pissa")

    def nonlinearity(self, hidden: Tensor) -> Tensor:
        return hidden

    def initialise_site(
        self,
        tensors: Mapping[str, Tensor],
        generator: Generator,
        pretrained: Callable[[], Tensor],
    ) -> dict[str, Tensor]:
        if self.init != "pissa":
            return super().initialise_site(tensors, generator, pretrained)
        from torch.linalg import svd

        down, up = tensors["down"], tensors["up"]
        r = down.shape[1]
        # In fp64: A₀B₀ is computed anew where an adapter is loaded, and in fp32 two processors are
        # 1.5e-4 of the largest weight apart (MiniLM), as singular values lie close together.
        left, values, right = svd(pretrained().double(), full_matrices=False)
        root = values[:r].sqrt()
        down.copy_(left[:, :r] * root)
        up.copy_(root[:, None] * right[:r])
        return {"down_0": down.clone(), "up_0": up.clone()}

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        result = super().delta(tensors, source)
        if self.init != "pissa":
            return result
        return result - source @ tensors["down_0"] @ tensors["up_0"]


@dataclass(frozen=True)
class Relu(Bottleneck):
    """ReLU(source W_down) W_up: the adapters' form (Houlsby et al., arXiv 1902.00751)."""

    name: ClassVar[str] = "relu"

    def nonlinearity(self, hidden: Tensor) -> Tensor:
        return hidden.relu()


@dataclass(frozen=True)
class Gelu(Bottleneck):
    """GELU(source W_down) W_up (Hendrycks and Gimpel, arXiv 1606.08415)."""

    name: ClassVar[str] = "gelu"

    def nonlinearity(self, hidden: Tensor) -> Tensor:
        from torch.nn.functional import gelu

        return gelu(hidden)


@dataclass(frozen=True)
class Silu(Bottleneck):
    """SiLU(source W_down) W_up, x·σ(x) (Elfwing et al., arXiv 1702.03118)."""

    name: ClassVar[str] = "silu"

    def nonlinearity(self, hidden: Tensor) -> Tensor:
        from torch.nn.functional import silu

        return silu(hidden)


@dataclass(frozen=True)
class Swiglu(Silu):
    """(SiLU(source W_gate) ⊙ source W_down) W_up: three matrices (Shazeer, arXiv 2002.05202)."""

    name: ClassVar[str] = "swiglu"

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        return {"gate_down": (d_source, width)} | super().tensors(site, d_source, width)

    def hidden(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        down = source @ tensors["down"]
        down = down + tensors["down_bias"] if self.bias else down
        return self.nonlinearity(source @ tensors["gate_down"]) * down
