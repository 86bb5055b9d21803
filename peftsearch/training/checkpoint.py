"""Tensors on disk: safetensors with a little text metadata, written whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from peftsearch.atomic import write_atomic
from peftsearch.errors import DataError

__all__ = ["as_bytes", "load_tensors", "number_in", "save_tensors"]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts (JSON values) to `path`, atomically."""
    write_atomic(path, as_bytes(tensors, facts))


def as_bytes(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """The content of a file of tensors and facts (JSON values)."""
    held = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    content: bytes = save(held, metadata={"peftsearch": json.dumps(dict(facts))})
    return content


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file; DataError if it is not one of ours or is damaged."""
    try:
        with safe_open(path, framework="pt") as opened:
            facts = json.loads((opened.metadata() or {}).get("peftsearch", "{}"))
            if not isinstance(facts, dict):
                raise ValueError("its facts are no object")
            return {name: opened.get_tensor(name) for name in opened.keys()}, facts  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as safetensors ({error})") from error


def number_in(facts: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A fact that is a finite number, not below 0; ValueError for anything else."""
    value = facts.get(key, default)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise ValueError(f"{key} is {value!r:.40}")
    return float(value)
