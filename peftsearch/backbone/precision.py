"""Precisions of a frozen backbone, by name: fp32, tf32 and bf16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from peftsearch.errors import UsageError, did_you_mean

__all__ = ["DTYPES", "TF32", "dtype_of", "matrix_products_in_tf32"]

TF32 = "tf32"
"""Weights and states in fp32; matrix products of them round their factors to 10 bits on a GPU."""
DTYPES = {"fp32": torch.float32, TF32: torch.float32, "bf16": torch.bfloat16}


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of a precision; UsageError for an unknown name, which a damaged record may have."""
    if precision not in DTYPES:
        raise UsageError(f"precision '{precision}' unknown{did_you_mean(precision, DTYPES)}")
    return DTYPES[precision]


@contextmanager
def matrix_products_in_tf32(on: bool) -> Iterator[None]:
    """Context in which a GPU computes matrix products of fp32 tensors in TF32; `on` False: as the
    process has it set.
    """
    if not on:
        yield
        return
    # Not `torch.backends.cuda.matmul.fp32_precision`: where it differs from this older setting,
    # torch (2.13) raises a RuntimeError wherever the older one is read.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
