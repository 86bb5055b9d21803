"""What YAML's aliases stand for: a few lines can name more values than any machine holds."""

from __future__ import annotations

from typing import Any

__all__ = ["MOST_VALUES", "values_in"]

MOST_VALUES = 100_000


def values_in(tree: Any) -> int | None:
    """How many values a tree of mappings and lists holds once its aliases are written out; None if
    it holds itself, or is nested too deeply to tell.
    """
    try:
        return _count(tree, {})
    except (_HoldsItself, RecursionError):
        return None


class _HoldsItself(Exception):
    pass


def _count(node: Any, known: dict[int, int | None]) -> int:
    """`known`: of each node its count, None while it is being counted."""
    if not isinstance(node, (dict, list)):
        return 1
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise _HoldsItself
        return count
    known[id(node)] = None
    children = node.values() if isinstance(node, dict) else node
    known[id(node)] = count = 1 + sum(_count(child, known) for child in children)
    return count
