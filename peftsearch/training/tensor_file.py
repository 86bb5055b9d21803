"""Tensor files: safetensors with facts (JSON) as metadata, written whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from peftsearch.disk.atomic import write_atomic
from peftsearch.errors import DataError

__all__ = ["as_bytes", "load_tensors", "number_in", "save_tensors"]

_DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The format's names of dtypes, in the order of tensors in a file: wide ones first, so that each
tensor is aligned.
"""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts (JSON values) to `path`, atomically.

    Tensors are written one by one: safetensors' `save` holds the whole file in memory twice, and
    the state of a trial that tunes every weight is eight times the model.
    """
    write_atomic(path, _file(tensors, facts))


def as_bytes(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """The content of a file of tensors and facts (JSON values)."""
    return b"".join(_file(tensors, facts))


def _file(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Iterator[memoryview]:
    """A safetensors file in pieces: the header's length, the header, and the bytes of each
    tensor; the same bytes as safetensors' own.
    """
    held = {name: tensor.detach() for name, tensor in tensors.items()}
    order = list(_DTYPES)
    names = sorted(held, key=lambda name: (order.index(held[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": {"peftsearch": json.dumps(dict(facts))}}
    end = 0
    for name in names:
        tensor = held[name]
        start, end = end, end + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # The format pads its header with spaces, so that the data are aligned to 8 bytes.
    encoded += b" " * (-len(encoded) % 8)
    yield memoryview(len(encoded).to_bytes(8, "little") + encoded)
    for name in names:
        # As bytes: numpy has no bfloat16.
        flat = held[name].cpu().contiguous().flatten()
        yield flat.view(torch.uint8).numpy().data if len(flat) else memoryview(b"")


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, on the CPU, and facts of a file; DataError if it is not ours or is damaged."""
    try:
        with safe_open(path, framework="pt") as opened:
            facts = json.loads((opened.metadata() or {}).get("peftsearch", "{}"))
            if not isinstance(facts, dict):
                raise ValueError("its facts are no object")
            return {name: opened.get_tensor(name) for name in opened.keys()}, facts  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as safetensors ({error})") from error


def number_in(facts: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """The fact `key`, a finite number not below 0; ValueError for anything else."""
    value = facts.get(key, default)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise ValueError(f"{key} is {value!r:.40}")
    return float(value)
