"""Limits on the number of modules in a config: building a damaged one could run for ever."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peftsearch.errors import MissingError

__all__ = ["refuse_oversized"]

_MOST = {
    r"(num_|n_|\w+_)(\w+_)?(layers?|blocks|groups)": 2_000,
    r"num_(\w+_)?experts": 100_000,
    r"num_labels": 1_000_000,
}
"""Pattern of a whole key → the largest number allowed; modules are built one by one."""


def refuse_oversized(path: Path, name: str) -> None:
    """Raise MissingError if the config.json at `path` asks for too many layers, experts or labels.

    A file that cannot be read is left to transformers, which says why.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    for key, count, most in _counts(config):
        raise MissingError(
            f"model '{name}' cannot be loaded: {path.name} says {key}: {count:,}, and more than "
            f"{most:,} are never built; get a complete copy of it"
        )


def _counts(config: Any) -> Iterator[tuple[str, int, int]]:
    """(key, number, limit) of every number above its limit, in nested configs, too."""
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        for pattern, most in _MOST.items():
            if isinstance(value, int) and value > most and re.fullmatch(pattern, key):
                yield key, value, most
        if key.endswith("config"):
            yield from _counts(value)
