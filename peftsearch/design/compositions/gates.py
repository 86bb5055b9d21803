"""Gated addition: the exact gate of prefix tuning, and gates that are learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.compositions.base import Composition, Surroundings
from peftsearch.design.shapes import SiteShape
from peftsearch.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Gated", "SigmoidGate", "TanhGate"]


@dataclass(frozen=True)
class Gated(Composition):
    """(1−λ) h + λ Δh with the exact gate of prefix tuning (He et al. 2022, equations 7 and 8).

    λ = Σexp(q P_kᵀ) / (Σexp(q P_kᵀ) + Σexp(q Kᵀ)) for each head and token. Attending over prefix
    and tokens together computes exactly this, in one softmax, and that is how `backbone/` does it.
    """

    name: ClassVar[str] = "gated"
    keeps_identity: ClassVar[bool] = False

    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, around: Surroundings
    ) -> Tensor:
        raise ConfigurationError("the exact gate is computed inside attention, with the softmax")


@dataclass(frozen=True)
class SigmoidGate(Composition):
    """h + σ(w·x + b) Δh, a number a token: UniPELT's gate (Mao et al. 2022, arXiv 2110.07577).

    x is what Δh is computed from (for a prefix the sub-layer's input); w and b begin at zero, so
    the gate begins half open.
    """

    name: ClassVar[str] = "sigmoid_gate"
    reads_source: ClassVar[bool] = True

    def tensors(self, site: SiteShape, d_source: int) -> dict[str, tuple[int, ...]]:
        return {"gate_w": (d_source,), "gate_b": (1,)}

    def initialise(self, name: str, tensor: Tensor, weight: Callable[[], Tensor]) -> None:
        tensor.zero_()

    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, around: Surroundings
    ) -> Tensor:
        w = tensors["gate_w"]
        gate = (around.source.to(w.dtype) @ w[:, None] + tensors["gate_b"]).sigmoid()
        gate = gate.reshape(*gate.shape, *[1] * (h.ndim - gate.ndim))  # one axis more for heads
        return h + gate.to(delta.dtype) * delta

    def describe(self) -> str:
        return "σ-gated"


@dataclass(frozen=True)
class TanhGate(Composition):
    """h + tanh(g) Δh with g = 0 at first: LLaMA-Adapter's gate (Zhang et al. 2024, arXiv
    2303.16199, equation 6). One g for each head at the heads' output, else one a site.
    """

    name: ClassVar[str] = "tanh_gate"
    closed_at_init: ClassVar[bool] = True

    def tensors(self, site: SiteShape, d_source: int) -> dict[str, tuple[int, ...]]:
        return {"gate": (site.heads if site.place == "attn.heads" else 1,)}

    def initialise(self, name: str, tensor: Tensor, weight: Callable[[], Tensor]) -> None:
        tensor.zero_()

    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, around: Surroundings
    ) -> Tensor:
        gate = tensors["gate"].tanh().to(delta.dtype)
        per_head = delta.reshape(*delta.shape[:2], len(gate), -1) if len(gate) > 1 else delta
        opened = per_head * (gate[:, None] if len(gate) > 1 else gate)
        return h + opened.reshape(h.shape)

    def describe(self) -> str:
        return "tanh-gated"
