"""Tensors on disk: safetensors with a little text metadata, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from peftsearch.atomic import write_atomic
from peftsearch.errors import DataError

__all__ = ["load_tensors", "save_tensors"]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts (JSON values) to `path`, atomically."""
    held = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    write_atomic(path, save(held, metadata={"peftsearch": json.dumps(dict(facts))}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file; DataError if it is not one of ours or is damaged."""
    try:
        with safe_open(path, framework="pt") as opened:
            facts = json.loads((opened.metadata() or {}).get("peftsearch", "{}"))
            return {name: opened.get_tensor(name) for name in opened.keys()}, facts  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as safetensors ({error})") from error
