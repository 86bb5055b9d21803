"""Precisions of a frozen backbone, by name: fp32 and bf16."""

from __future__ import annotations

import torch

from peftsearch.errors import UsageError, did_you_mean

__all__ = ["DTYPES", "dtype_of"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of a precision; UsageError for an unknown name, which a damaged record may have."""
    if precision not in DTYPES:
        raise UsageError(f"precision '{precision}' unknown{did_you_mean(precision, DTYPES)}")
    return DTYPES[precision]
