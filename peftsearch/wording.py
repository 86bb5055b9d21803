"""Formatting for messages: counts with nouns, durations, measurements, validation errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["Problem", "agree", "byte_size", "counted", "duration", "first_problem", "measured"]


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `2 rows`, `12,000 rows`; `1 match`, `2 matches` if the plural is given."""
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


def byte_size(count: int) -> str:
    """`512 bytes`, `12.3 kB`, `1.2 GB`; a kB is 1,000 bytes.

    >>> byte_size(12_288)
    '12.3 kB'
    """
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def measured(value: float | None, error: float | None = None, decimals: int = 4) -> str:
    """`0.7530 ± 0.0136`, `21.90`, or a dash where nothing finite was measured."""
    if value is None or not math.isfinite(value):
        return "–"
    shown = f"{value:z.{decimals}f}"  # z: a rounded −0 is written without its sign
    known = error is not None and math.isfinite(error)
    return f"{shown} ± {error:.{decimals}f}" if known else shown


@dataclass(frozen=True)
class Problem:
    """Why pydantic refused a value: `kind` is its name for that, `path` leads to the value."""

    kind: str
    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        """`metric.worst: Field required`."""
        key = ".".join(map(str, self.path))
        return f"{key}: {self.message}" if key else self.message

    def within(self, key: str) -> Problem:
        """The problem of a record that is itself the value of a key."""
        return replace(self, path=(key, *self.path))


def first_problem(error: ValidationError) -> Problem:
    """The problem to report: of a misspelt key, which is missing as well, that it is unknown."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    message = first["msg"].removeprefix("Value error, ")
    return Problem(first["type"], first["loc"], message)
