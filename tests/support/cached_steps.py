"""A model's forward that continues from a cache of keys and values."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

__all__ = ["continued"]


def continued(model: nn.Module, cache: Any, **inputs: Any) -> tuple[Any, Any]:
    """The output for further tokens, and the cache with theirs. Transformers calls it `cache`, and
    called it `past_key_values` before version 5.24.
    """
    names = inspect.signature(model.forward).parameters
    name = "cache" if "cache" in names else "past_key_values"
    output = model(**inputs, **{name: cache}, use_cache=True)
    return output, output[name]
