"""Gated addition: the exact gate of prefix tuning, and learned gates (sigmoid, tanh)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftsearch.design.compositions.base import Composition, CompositionContext
from peftsearch.design.shapes import SiteShape
from peftsearch.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Gated", "SigmoidGate", "TanhGate"]


@dataclass(frozen=True)
class Gated(Composition):
    """(1−λ) h + λ Δh with the exact gate of prefix tuning (He et al. 2022, equations 7 and 8).

    λ = Σexp(q P_kᵀ) / (Σexp(q P_kᵀ) + Σexp(q Kᵀ)) for each head and token, q scaled as
    in the model. Attending over prefix and tokens together computes exactly this, in one softmax,
    and `backbone/attach/attention.py` does so. Parameters: none.

    >>> from peftsearch.design.composition import Gated
    >>> Gated.keeps_identity  # values of zero still take attention from the tokens
    False
    """

    name: ClassVar[str] = "gated"
    keeps_identity: ClassVar[bool] = False

    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, context: CompositionContext
    ) -> Tensor:
        """Always raises ConfigurationError: the gate is not a function of h and Δh alone."""
        raise ConfigurationError("the exact gate is computed inside attention, with the softmax")


@dataclass(frozen=True)
class SigmoidGate(Composition):
    """h + σ(w·x + b) Δh, a number a token: UniPELT's gate (Mao et al. 2022, arXiv 2110.07577).

    x is the form's source (for a prefix the sub-layer's input). Tensors: `gate_w` [d_source] and
    `gate_b` [1], zero at first, so that the gate begins half open. Parameters: d_source + 1 a site.

    >>> import torch
    >>> from peftsearch.design.composition import CompositionContext, SigmoidGate
    >>> gate = {"gate_w": torch.zeros(4), "gate_b": torch.zeros(1)}
    >>> h, delta, source = torch.zeros(1, 1, 2), torch.ones(1, 1, 2), torch.ones(1, 1, 4)
    >>> SigmoidGate().compose(gate, h, delta, CompositionContext(source))
    tensor([[[0.5000, 0.5000]]])
    """

    name: ClassVar[str] = "sigmoid_gate"
    reads_source: ClassVar[bool] = True

    def tensors(self, site: SiteShape, d_source: int) -> dict[str, tuple[int, ...]]:
        return {"gate_w": (d_source,), "gate_b": (1,)}

    def initialise(self, name: str, tensor: Tensor, weight: Callable[[], Tensor]) -> None:
        tensor.zero_()

    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, context: CompositionContext
    ) -> Tensor:
        w = tensors["gate_w"]
        gate = (context.source.to(w.dtype) @ w[:, None] + tensors["gate_b"]).sigmoid()
        # [batch, tokens, 1], and [batch, tokens, 1, 1] beside a prefix, whose h has heads apart.
        gate = gate.reshape(*gate.shape, *[1] * (h.ndim - gate.ndim))
        return h + gate.to(delta.dtype) * delta

    def describe(self) -> str:
        return "σ-gated"


@dataclass(frozen=True)
class TanhGate(Composition):
    """h + tanh(g) Δh with g = 0 at first: LLaMA-Adapter's gate (Zhang et al. 2024, arXiv
    2303.16199, equation 6).

    Tensor: `gate`, [heads] at the heads' output, else [1]. Parameters: as many a site.

    >>> import torch
    >>> from peftsearch.design.composition import CompositionContext, TanhGate
    >>> h, delta = torch.ones(1, 3, 6), torch.ones(1, 3, 6)
    >>> closed = {"gate": torch.zeros(1)}
    >>> torch.equal(TanhGate().compose(closed, h, delta, CompositionContext(h)), h)
    True
    """

    name: ClassVar[str] = "tanh_gate"
    closed_at_init: ClassVar[bool] = True

    def tensors(self, site: SiteShape, d_source: int) -> dict[str, tuple[int, ...]]:
        return {"gate": (site.heads if site.place == "attn.heads" else 1,)}

    def initialise(self, name: str, tensor: Tensor, weight: Callable[[], Tensor]) -> None:
        tensor.zero_()

    def compose(
        self, tensors: Mapping[str, Tensor], h: Tensor, delta: Tensor, context: CompositionContext
    ) -> Tensor:
        gate = tensors["gate"].tanh().to(delta.dtype)
        # At the heads' output a gate a head: Δh [batch, tokens, heads · head_dim] is split for it.
        per_head = delta.reshape(*delta.shape[:2], len(gate), -1) if len(gate) > 1 else delta
        opened = per_head * (gate[:, None] if len(gate) > 1 else gate)
        return h + opened.reshape(h.shape)

    def describe(self) -> str:
        return "tanh-gated"
