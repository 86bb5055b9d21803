"""Dimension 4, the composition function: the new h, of h and Δh (He et al. 2022, Table 1).

One class in `design/compositions/` and one line in `COMPOSITIONS` make a new one.
"""

from __future__ import annotations

from peftsearch.design.compositions.base import Add, Composition, CompositionContext
from peftsearch.design.compositions.gates import Gated, SigmoidGate, TanhGate
from peftsearch.design.compositions.magnitude import Dora
from peftsearch.design.compositions.scaled import RankStabilised, Scaled

__all__ = [
    "COMPOSITIONS",
    "Add",
    "Composition",
    "CompositionContext",
    "Dora",
    "Gated",
    "RankStabilised",
    "Scaled",
    "SigmoidGate",
    "TanhGate",
]

COMPOSITIONS: dict[str, type[Composition]] = {
    c.name: c for c in (Add, Scaled, Gated, RankStabilised, SigmoidGate, TanhGate, Dora)
}
