"""Products with frozen weights in low precision: int8 and bf16, one row of a table each.

y = x Wᵀ + b takes and gives fp32; only the product itself is in low precision.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftsearch.errors import ConfigurationError, MissingError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LOW_PRECISIONS", "LowPrecision", "Product", "cpu_flags", "low_precision"]

_SMALLEST_SCALE = 2.0**-126
"""The smallest normal number of fp32, in place of a scale of 0, which nothing can be divided by."""

Product = Callable[["Tensor", "Tensor | None"], "Tensor"]
"""(x [rows, d_in], b [d_out] or None) → y [rows, d_out], fp32."""


@dataclass(frozen=True)
class LowPrecision:
    """One precision: `packed` makes the product with one frozen weight W [d_out, d_in]."""

    name: str
    flags: tuple[str, ...]
    """CPU flags, as Linux lists them, of instructions that compute it; one of them is enough."""
    packed: Callable[[Tensor], Product]

    @property
    def is_here(self) -> bool:
        """Whether this machine's CPU has one of the instructions."""
        return bool(cpu_flags() & set(self.flags))

    def refuse_if_missing(self) -> None:
        """MissingError on a CPU without the instructions."""
        if not self.is_here:
            raise MissingError(
                f"--low-rungs {self.name} needs a CPU with one of {', '.join(self.flags)}, which "
                "this one does not have: start a search without --low-rungs, or use another machine"
            )


def cpu_flags() -> frozenset[str]:
    """CPU flags of the first processor that oneDNN may use; empty where the system lists none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    listed = next((line for line in lines if line.startswith("flags")), ":")
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", ""))
    return frozenset(listed.split(":", 1)[1].split()) - _HIDDEN.get(limit.upper(), frozenset())


_VNNI_512 = frozenset(("avx512_vnni", "amx_int8"))
_HIDDEN = dict.fromkeys(("AVX2_VNNI", "AVX2_VNNI_2"), _VNNI_512) | dict.fromkeys(
    ("SSE41", "AVX", "AVX2", "AVX512_CORE"), _VNNI_512 | {"avx_vnni"}
)
"""A value of ONEDNN_MAX_CPU_ISA → the instructions for 8-bit products that it rules out."""


def _int8(weight: Tensor) -> Product:
    """The product with W [d_out, d_in] in 8-bit integers.

    W ≈ s q, symmetric, with a scale s for each output channel; x ≈ t (l − z), where every row of x
    has 256 levels l from its least to its greatest value. oneDNN multiplies and sums integers
    exactly, so that y = t (l qᵀ s − z Σ q s) + b.
    """
    import torch

    scales = weight.abs().amax(1).div_(127).clamp_(min=_SMALLEST_SCALE)
    # Contiguous, since qlinear_prepack ignores strides.
    rounded = (weight / scales[:, None]).round_().to(torch.int8).contiguous()
    sums = rounded.sum(1) * scales
    packed = torch.ops.onednn.qlinear_prepack(rounded, None)
    no_zeros = torch.zeros(len(weight), dtype=torch.int32)

    def product(x: Tensor, bias: Tensor | None) -> Tensor:
        levels, step, zero = _levels(x)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            *(levels, 1.0, 0, packed, scales, no_zeros, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        y.addr_(zero[:, 0], sums, alpha=-1)
        return y.mul_(step) if bias is None else torch.addcmul(bias, y, step)

    return product


def _levels(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """l [rows, d_in] from 0 to 255, t and z [rows, 1], of x [rows, d_in]; z is whole, so that 0 is
    represented exactly.
    """
    import torch

    least = x.amin(1, keepdim=True).clamp_(max=0)  # aminmax over a dimension takes 8 times as long
    step = x.amax(1, keepdim=True).clamp_(min=0).sub_(least).div_(255).clamp_(min=_SMALLEST_SCALE)
    zero = least.div_(step).neg_().round_()
    signed = (x * step.reciprocal()).add_(zero - 128).round_().to(torch.int8)
    # Unsigned by turning the sign: a cast to uint8 takes 4 times as long, and without AMX oneDNN
    # has no fast product of two signed matrices.
    return signed.view(torch.uint8).bitwise_xor_(128), step, zero


def _bf16(weight: Tensor) -> Product:
    """The product with W [d_out, d_in] in bfloat16, summed in fp32, the sum rounded to bfloat16."""
    from torch.nn.functional import linear

    rounded = weight.bfloat16()

    def product(x: Tensor, bias: Tensor | None) -> Tensor:
        rounded_bias = None if bias is None else bias.bfloat16()
        return linear(x.bfloat16(), rounded, rounded_bias).float()

    return product


LOW_PRECISIONS: dict[str, LowPrecision] = {
    row.name: row
    for row in (
        # Without these instructions, 8-bit products are summed in 16 bits, which overflow.
        LowPrecision("int8", ("avx512_vnni", "avx_vnni", "amx_int8"), _int8),
        LowPrecision("bf16", ("avx512_bf16", "amx_bf16"), _bf16),
    )
}


def low_precision(name: str) -> LowPrecision:
    """The row of a name; ConfigurationError with the nearest name if there is none."""
    if name not in LOW_PRECISIONS:
        raise ConfigurationError(
            f"low precision '{name}' unknown{did_you_mean(name, LOW_PRECISIONS)}: "
            f"{', '.join(LOW_PRECISIONS)}"
        )
    return LOW_PRECISIONS[name]
