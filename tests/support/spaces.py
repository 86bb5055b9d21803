"""Shipped spaces, read once a process: a space keeps what it comes to on each backbone."""

from __future__ import annotations

from functools import lru_cache

from peftsearch.space.space import Space, load_space

__all__ = ["shipped"]


@lru_cache
def shipped(name: str) -> Space:
    """Shared: not to be changed."""
    return load_space(name)
