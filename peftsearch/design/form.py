"""Dimension 1, the functional form: how Δh is computed (He et al. 2022, Table 1).

A form says which tensors it needs, how they begin, and what Δh is. It knows nothing of where it
sits, what it reads or how its result is added. One class and one line in `FORMS` make a new one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from peftsearch.design.shapes import SiteShape
from peftsearch.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["FORMS", "Bottleneck", "Constant", "Dense", "Form", "Gelu", "Linear", "Prefix", "Relu"]


@dataclass(frozen=True)
class Form(ABC):
    """How Δh comes about.

    Units: a width is a bottleneck size r or a prefix length l, both counted in vectors.
    """

    name: ClassVar[str]
    width_symbol: ClassVar[str | None] = None
    """`r`, `l`, or None for a form without a width."""
    typical_lr: ClassVar[float]
    """A learning rate that works for it on most tasks (AdamW)."""
    decays: ClassVar[bool] = True
    """Whether weight decay applies to its tensors."""

    @abstractmethod
    def tensors(self, site: SiteShape, d_source: int, width: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tuned tensors at one site."""

    @abstractmethod
    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        """Fill one tensor in place."""

    @abstractmethod
    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        """Δh for a source (batch, seq, d_source): (batch, seq, d_h)."""

    def max_width(self, site: SiteShape, d_source: int) -> int:
        """A larger width adds no capacity."""
        return min(d_source, site.d_h)

    @property
    def identity_at_init(self) -> bool:
        """Whether Δh is exactly zero before training."""
        return True


@dataclass(frozen=True)
class Bottleneck(Form):
    """f(source W_down) W_up, both without biases unless asked (the paper's counts leave them out).

    `init`: `lora` begins at Δh = 0 (Kaiming-uniform(√5) down, zero up), `bert` at N(0, 0.02) for
    both, nearly zero.
    """

    init: Literal["lora", "bert"] = "lora"
    bias: bool = False

    width_symbol: ClassVar[str | None] = "r"
    typical_lr: ClassVar[float] = 1e-3

    def __post_init__(self) -> None:
        known = ("lora", "bert")
        if not isinstance(self.init, str) or self.init not in known:
            hint = did_you_mean(str(self.init), known)
            raise ConfigurationError(f"init '{self.init}' unknown{hint}")
        if not isinstance(self.bias, bool):
            raise ConfigurationError(f"bias {self.bias} is not true or false")

    def tensors(self, site: SiteShape, d_source: int, width: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"down": (d_source, width), "up": (width, site.d_h)}
        if self.bias:
            shapes |= {"down_bias": (width,), "up_bias": (site.d_h,)}
        return shapes

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        if name.endswith("bias") or (self.init == "lora" and name == "up"):
            tensor.zero_()
        elif self.init == "lora":
            bound = 1 / math.sqrt(tensor.shape[0])  # kaiming_uniform(a=√5) over fan-in
            tensor.uniform_(-bound, bound, generator=generator)
        else:
            tensor.normal_(0.0, 0.02, generator=generator)

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        hidden = source @ tensors["down"]
        if self.bias:
            hidden = hidden + tensors["down_bias"]
        result = self.nonlinearity(hidden) @ tensors["up"]
        return result + tensors["up_bias"] if self.bias else result

    @abstractmethod
    def nonlinearity(self, hidden: Tensor) -> Tensor:
        """Applied to the bottleneck (batch, seq, r)."""

    @property
    def identity_at_init(self) -> bool:
        return self.init == "lora"


@dataclass(frozen=True)
class Linear(Bottleneck):
    """source W_down W_up: LoRA's form (Hu et al., arXiv 2106.09685)."""

    name: ClassVar[str] = "linear"

    def nonlinearity(self, hidden: Tensor) -> Tensor:
        return hidden


@dataclass(frozen=True)
class Relu(Bottleneck):
    """ReLU(source W_down) W_up: the adapters' form (Houlsby et al., arXiv 1902.00751)."""

    name: ClassVar[str] = "relu"

    def nonlinearity(self, hidden: Tensor) -> Tensor:
        return hidden.relu()


@dataclass(frozen=True)
class Gelu(Bottleneck):
    """GELU(source W_down) W_up."""

    name: ClassVar[str] = "gelu"

    def nonlinearity(self, hidden: Tensor) -> Tensor:
        from torch.nn.functional import gelu

        return gelu(hidden)


@dataclass(frozen=True)
class Prefix(Form):
    """softmax(q P_kᵀ) P_v: attention over `l` learned keys and values (Li and Liang 2021).

    The source is the scaled queries (batch, heads, seq, head_dim); grouped-query attention shares a
    prefix among the query heads of one group. P_v begins at zero, so an ungated prefix begins as
    the identity; under the exact gate the zero values still take attention from the tokens.
    """

    name: ClassVar[str] = "prefix"
    width_symbol: ClassVar[str | None] = "l"
    typical_lr: ClassVar[float] = 1e-2
    MAX_LENGTH: ClassVar[int] = 512

    def tensors(self, site: SiteShape, d_source: int, width: int) -> dict[str, tuple[int, ...]]:
        shape = (site.kv_heads, width, site.head_dim)
        return {"keys": shape, "values": shape}

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        if name == "values":
            tensor.zero_()
        else:
            tensor.normal_(0.0, 1.0, generator=generator)

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        keys, values = tensors["keys"], tensors["values"]
        groups = source.shape[1] // keys.shape[0]
        if groups > 1:
            keys, values = (t.repeat_interleave(groups, dim=0) for t in (keys, values))
        return (source @ keys.transpose(-1, -2)).softmax(-1) @ values

    def max_width(self, site: SiteShape, d_source: int) -> int:
        return self.MAX_LENGTH


@dataclass(frozen=True)
class Constant(Form):
    """Δh = b, the same for every token: BitFit's form (Ben Zaken et al., arXiv 2106.10199)."""

    name: ClassVar[str] = "constant"
    typical_lr: ClassVar[float] = 3e-3
    decays: ClassVar[bool] = False

    def tensors(self, site: SiteShape, d_source: int, width: int) -> dict[str, tuple[int, ...]]:
        return {"bias": site.tensor or (site.d_h,)}

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        tensor.zero_()

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        return tensors["bias"]


@dataclass(frozen=True)
class Dense(Form):
    """An unconstrained change of a weight tensor: full fine-tuning, W + δ with δ = 0 at first."""

    name: ClassVar[str] = "dense"
    typical_lr: ClassVar[float] = 1e-4

    def tensors(self, site: SiteShape, d_source: int, width: int) -> dict[str, tuple[int, ...]]:
        return {"weight": site.tensor}

    def initialise(self, name: str, tensor: Tensor, generator: Generator) -> None:
        tensor.zero_()

    def delta(self, tensors: Mapping[str, Tensor], source: Tensor) -> Tensor:
        return tensors["weight"]


FORMS: dict[str, type[Form]] = {
    form.name: form for form in (Linear, Relu, Gelu, Prefix, Constant, Dense)
}
