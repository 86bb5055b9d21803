"""Numbers as people write them: counts with their nouns, and durations."""

from __future__ import annotations

__all__ = ["agree", "counted", "duration"]


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `2 rows`, `12,000 rows`; `1 match`, `2 matches` where the plural is said."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def agree(count: int, one: str, more: str) -> str:
    """`one` of a single thing, else `more`: is or are, it or they."""
    return one if count == 1 else more


def duration(seconds: float) -> str:
    """`40 s`, `6 minutes`, `1.5 hours`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.3g} minutes"
    return f"{seconds / 3600:.3g} hours"
