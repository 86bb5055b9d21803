"""Bottlenecks: a projection down to r, a nonlinearity and a projection up (LoRA, adapters)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from peftsearch.design.checks import check_flag, check_name
from peftsearch.design.forms.base import Form, Shapes
from peftsearch.design.shapes import SiteShape

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Bottleneck", "Gelu", "Linear", "Relu", "Silu", "Swiglu"]


@dataclass(frozen=True)
class Bottleneck(Form):
    """Δh = f(source W_down) W_up (He et al. 2022, Table 1, rows "Adapter" and "LoRA").

    Tensors: `down` [d_source, r], `up` [r, d_h]; with `bias` also `down_bias` [r] and `up_bias`
    [d_h], which the paper's counts leave out.
    Parameters: r (d_source + d_h) a site, and r + d_h more with `bias`.

    `init`: `lora` begins at Δh = 0 (Kaiming-uniform(√5) down, zero up), `bert` at N(0, 0.02) for
    both, so nearly zero. Raises ConfigurationError for another `init`.
    """

    init: Literal["lora", "bert", "pissa"] = "lora"
    bias: bool = False

    width_symbol: ClassVar[str | None] = "r"
    typical_lr: ClassVar[float] = 1e-3
    fast: ClassVar[tuple[str, ...]] = ("up",)
    is_projection: ClassVar[bool] = True
    batches: ClassVar[bool] = True
    padded: ClassVar[Mapping[str, int]] = {
        "down": 1,
        "down_bias": 0,
        "up": 0,
        "gate_down": 1,
        "down_0": 1,
        "up_0": 0,
    }
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
        self, tensors: Mapping[str, Tensor], source: Tensor, h: Tensor, scale: float | Tensor
    ) -> Tensor:
        """h + scale Δh [batch, tokens, d_h], as one `addmm` where layout and dtype allow it."""
        # PiSSA's two products are equal at first: subtracted from one another before h is added,
        # they leave Δh exactly zero; added to h one after the other, they would leave rounding.
        up, tokens = tensors["up"], h.shape[:-1]
        plain = h.is_contiguous() and h.dtype == up.dtype and source.shape[:-1] == tokens
        if not plain or self.init == "pissa":
            return super().add_to(tensors, source, h, scale)
        hidden = self.hidden(tensors, source)
        result = _plus_product(h, hidden, up, scale)
        return result + scale * tensors["up_bias"] if self.bias else result

    @property
    def function(self) -> Hashable:
        # Every field counts, an extension's own as well: only initial values may differ.
        return self if self.init == "pissa" else replace(self, init=self.INITS[0])  # type: ignore[arg-type]

    def hidden(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        """The bottleneck after its nonlinearity, [batch, tokens, r]."""
        down = source @ tensors["down"]
        return self.nonlinearity(down + tensors["down_bias"] if self.bias else down)

    @abstractmethod
    def nonlinearity(self, hidden: Tensor) -> Tensor:
        """f, elementwise over the bottleneck [batch, tokens, r]."""

    @property
    def identity_at_init(self) -> bool:
        return self.init != "bert"

    def describe(self) -> str:
        return ", ".join(["pissa"] * (self.init == "pissa") + ["bias"] * self.bias)


def _plus_product(h: Tensor, hidden: Tensor, up: Tensor, scale: float | Tensor) -> Tensor:
    """h + scale · hidden up, for hidden [batch, tokens, r] and up [r, d_h], or for several members
    [members, tokens, r] and [members, r, d_h].
    """
    from torch import addmm, baddbmm

    if up.ndim == 2 and isinstance(scale, float | int):
        return addmm(h.flatten(0, -2), hidden.flatten(0, -2), up, alpha=scale).view_as(h)
    if isinstance(scale, float | int):
        return baddbmm(h, hidden, up, alpha=scale)
    return baddbmm(h, hidden, up * scale)


@dataclass(frozen=True)
class Linear(Bottleneck):
    """Δh = source W_down W_up: LoRA (Hu et al. 2022, arXiv 2106.09685, equation 3).

    Parameters: r (d_source + d_h) a site. The scale α/r is the composition's (`Scaled`).

    `init: pissa` (Meng et al. 2024, arXiv 2404.02948) begins with the r largest singular vectors of
    the linear layer beside it: Δh = source (W_down W_up − A₀ B₀), both products equal at first, so
    that the frozen W stays as it was.

    >>> import torch
    >>> from peftsearch.design.form import Linear
    >>> tensors = {"down": torch.ones(4, 2), "up": torch.ones(2, 6)}
    >>> Linear().delta(tensors, torch.ones(1, 3, 4)).shape  # 4 channels → 2 → 6
    torch.Size([1, 3, 6])
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
        """Random, or with `init: pissa` U √Σ and √Σ Vᵀ of W = U Σ Vᵀ, cut to r columns and rows."""
        if self.init != "pissa":
            return super().initialise_site(tensors, generator, pretrained)
        from torch.linalg import svd

        down, up = tensors["down"], tensors["up"]
        r = down.shape[1]
        # In fp64: A₀B₀ is computed again where an adapter is loaded, and in fp32 two processors are
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
    """Δh = ReLU(source W_down) W_up: adapters (Houlsby et al. 2019, arXiv 1902.00751).

    Parameters: r (d_source + d_h) a site.

    >>> import torch
    >>> from peftsearch.design.form import Relu
    >>> tensors = {"down": torch.tensor([[1.0, -1.0]]), "up": torch.ones(2, 1)}
    >>> Relu().delta(tensors, torch.tensor([[[3.0]]]))  # −3 does not pass
    tensor([[[3.]]])
    """

    name: ClassVar[str] = "relu"

    def nonlinearity(self, hidden: Tensor) -> Tensor:
        return hidden.relu()


@dataclass(frozen=True)
class Gelu(Bottleneck):
    """Δh = GELU(source W_down) W_up (Hendrycks and Gimpel 2016, arXiv 1606.08415).

    Parameters: r (d_source + d_h) a site.

    >>> from peftsearch.design.form import Gelu
    >>> Gelu(bias=True).describe()
    'bias'
    """

    name: ClassVar[str] = "gelu"

    def nonlinearity(self, hidden: Tensor) -> Tensor:
        from torch.nn.functional import gelu

        return gelu(hidden)


@dataclass(frozen=True)
class Silu(Bottleneck):
    """Δh = SiLU(source W_down) W_up with SiLU(x) = x σ(x) (Elfwing et al. 2017, arXiv 1702.03118).

    Parameters: r (d_source + d_h) a site.

    >>> from peftsearch.design.form import Silu
    >>> Silu().identity_at_init, Silu(init="bert").identity_at_init
    (True, False)
    """

    name: ClassVar[str] = "silu"

    def nonlinearity(self, hidden: Tensor) -> Tensor:
        from torch.nn.functional import silu

        return silu(hidden)


@dataclass(frozen=True)
class Swiglu(Silu):
    """Δh = (SiLU(source W_gate) ⊙ source W_down) W_up (Shazeer 2020, arXiv 2002.05202).

    Tensors: `gate_down` [d_source, r] beside a bottleneck's. Parameters: r (2 d_source + d_h) a
    site.

    >>> import torch
    >>> from peftsearch.design.form import Swiglu
    >>> tensors = {name: torch.ones(4, 2) for name in ("gate_down", "down")}
    >>> Swiglu().delta(tensors | {"up": torch.ones(2, 6)}, torch.zeros(1, 3, 4)).shape
    torch.Size([1, 3, 6])
    """

    name: ClassVar[str] = "swiglu"

    def tensors(self, site: SiteShape, d_source: int, width: int) -> Shapes:
        return {"gate_down": (d_source, width)} | super().tensors(site, d_source, width)

    def hidden(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        down = source @ tensors["down"]
        down = down + tensors["down_bias"] if self.bias else down
        return self.nonlinearity(source @ tensors["gate_down"]) * down
