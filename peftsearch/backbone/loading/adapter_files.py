"""Detecting peft or AdapterHub adapter files in a model's folder.

Where peft is installed, transformers attaches any adapter that it finds beside the weights; its
tensors would be frozen and counted as the model's. Here a model is its plain weights, and an
adapter alone is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = [
    *("ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "PLAIN"),
    *("adapter_beside", "adapter_tensor", "note_of_adapter", "why_no_model"),
]

PLAIN: dict[str, Any] = {"adapter_kwargs": {"subfolder": "config.json"}}
"""Options of `from_pretrained` that load a model without the adapter beside it. transformers (5.23)
has no option for this. It looks for adapters in `subfolder`; config.json is a file, so that nothing
is found there.
"""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""The names that peft gives to an adapter's files."""
_ADAPTED = re.compile(
    r"(^|\.)(base_layer|original_module|modules_to_save|(lora|ia3|hada|lokr|oft|vera|boft|hra)_\w+)"
    r"(\.|$)"
)
"""Parts of names that peft's (and loralib's) layers give to tensors."""


def adapter_beside(source: str) -> Path | None:
    """The `adapter_config.json` in a local folder or a repository of the Hub."""
    if Path(source).is_dir():
        found = Path(source) / ADAPTER_CONFIG
        return found if found.is_file() else None
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        cached = find_adapter_config_file(source)
    except (OSError, ValueError):  # no such repository, or no name of one
        return None
    return None if cached is None else Path(cached)


def why_no_model(name: str, config: Path) -> str:
    """The message for an adapter given as a model, with its base model's name if it has one."""
    base = _base_of(config)
    of, which = (f" of '{base}'", f"'{base}'") if base else ("", "the model that it was made for")
    return (
        f"'{name}' is an adapter{of} ({config.name}) and not a model: give {which}, or merge the "
        "two (merge_and_unload of peft) and give the folder of the merged model"
    )


def note_of_adapter(name: str, config: Path | None, unused: Iterable[str]) -> str:
    """A sentence on an adapter that lies beside a model's weights, or among them, and is not used;
    empty where there is none. `unused`: names of tensors that were not loaded.
    """
    tensor = adapter_tensor(unused)
    if config is None and tensor is None:
        return ""
    where = config.name if config is not None else f"{tensor} in its checkpoint"
    return (
        f"model '{name}': the adapter next to its weights ({where}) is not used; to start from it, "
        "give the folder of the merged model"
    )


def adapter_tensor(names: Iterable[str]) -> str | None:
    """The first of the tensors' names that an adapter's layer has given; None if none has."""
    return min((name for name in names if _ADAPTED.search(name)), default=None)


def _base_of(config: Path) -> str | None:
    """The base model that an adapter's config names, in peft's key or AdapterHub's, or None."""
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    base = values.get("base_model_name_or_path") or values.get("model_name")
    return " ".join(base.split())[:200] if isinstance(base, str) else None
