"""Tolerance in fp32 for one result computed in two ways."""

from __future__ import annotations

from torch import Tensor

__all__ = ["apart_in_fp32"]

_ROUNDING = 1e-4
"""Sums of tens of numbers, in another order on every processor, through two layers and tensors that
are far from their beginning: up to 4e-5 was measured. What is wrong is off by 1e-2 and more.
"""


def apart_in_fp32(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value (1 at least): up to 1 it is rounding.

    Only where fp64 cannot be had: there 1e-12 tells rounding from mistakes.
    """
    largest = max(1.0, float(other.abs().max()))
    return float((one - other).abs().max()) / (_ROUNDING * largest)
