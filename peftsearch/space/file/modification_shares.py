"""The `modifications:` key of a space file: how many a configuration has, and in which shares."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator

__all__ = ["ModificationShares"]


def _parse(raw: Any) -> dict[int, float]:
    """Number → share, by number. A list gives equal shares, a scalar is the only number."""
    items = raw if isinstance(raw, list) else [raw]
    shares = list(raw.items()) if isinstance(raw, dict) else [(item, 1.0) for item in items]
    found = sorted((_number(key), _share(key, share)) for key, share in shares)
    if not found:
        raise ValueError("no number of modifications is given")
    if len(dict(found)) != len(found):
        raise ValueError("a number of modifications appears twice")
    return dict(found)


def _number(key: Any) -> int:
    text = str(key)  # the keys of a mapping are read as text
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise ValueError(f"'{text}' is not a whole number of modifications, 1 or more")
    return int(text)


def _share(key: Any, share: Any) -> float:
    number = isinstance(share, (int, float)) and not isinstance(share, bool)
    try:
        usable = number and math.isfinite(share) and share > 0
    except OverflowError:  # a whole number beyond every float
        usable = False
    if not usable:
        raise ValueError(f"the share of {key} must be a number above 0")
    return float(share)


ModificationShares = Annotated[dict[int, float], BeforeValidator(_parse)]
"""Number of modifications → its share of samples, relative to the others'."""
