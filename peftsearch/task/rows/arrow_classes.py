"""Class names in Arrow and parquet files, as the `datasets` library stores them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["class_names_in_schema"]


def class_names_in_schema(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Class names by column, for cells that are indices or lists of indices; nested columns have
    names with a dot. Empty for files that `datasets` did not write.
    """
    written = (schema.metadata or {}).get(b"huggingface")
    try:
        return dict(_named("", json.loads(written)["info"]["features"])) if written else {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _named(within: str, features: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = []
    for column, feature in features.items():
        inner = _inside(feature)
        if isinstance(inner, dict) and isinstance(inner.get("names"), list):
            found.append((f"{within}{column}", tuple(map(str, inner["names"]))))
            continue
        if not isinstance(feature, dict):
            continue
        if "_type" not in feature:
            found += _named(f"{within}{column}.", feature)
    return found


def _inside(feature: Any) -> Any:
    """The element type of a list, `{"feature": …, "_type": "List"}` (`[…]` in old versions); any
    other type unchanged.
    """
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    is_list = isinstance(feature, dict) and "_type" in feature and "feature" in feature
    return feature["feature"] if is_list else feature
