"""Values in a space file: a scalar is fixed, a list is a choice, and `{range: [lo, hi]}` and
`{log: [lo, hi]}` are ranges of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from peftsearch.errors import did_you_mean

__all__ = ["Flags", "Model", "Names", "Numbers", "Suggester", "Values", "all_known"]

Scalar = str | int | float | bool


class Model(BaseModel):
    """A part of a space file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Suggester(Protocol):
    """The part of an Optuna trial that decoding uses, and that its stand-ins have."""

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


@dataclass(frozen=True)
class Values:
    """Fixed (one choice), a choice, or a range of numbers."""

    choices: tuple[Scalar, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @property
    def is_range(self) -> bool:
        return not self.choices

    @property
    def is_fixed(self) -> bool:
        return len(self.choices) == 1

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """Every choice, or both bounds; if these are usable, all of the values are."""
        return self.choices or (self.low, self.high)

    def suggest(self, trial: Suggester, name: str) -> Any:
        """A trial's value. A fixed one is not suggested, and no parameter of the study."""
        if self.is_fixed:
            return self.choices[0]
        if self.is_range:
            return trial.suggest_float(name, self.low, self.high, log=self.log)
        return trial.suggest_categorical(name, list(self.choices))

    def nearest(self, wanted: Any) -> Any:
        """`wanted` if it is one of these values, else the nearest (or the first)."""
        if self.is_range:
            return min(max(float(wanted), self.low), self.high)
        if wanted in self.choices:
            return wanted
        numbers = [c for c in self.choices if isinstance(c, (int, float))]
        if numbers and isinstance(wanted, (int, float)):
            # Nearest as a ratio: rates and scales are compared on a log scale. 1e-300 for zeros.
            return min(numbers, key=lambda c: abs(math.log(max(c, 1e-300) / max(wanted, 1e-300))))
        return self.choices[0]

    def to_plain(self) -> Any:
        """The shortest way to write it in a space file."""
        if self.is_range:
            return {"log" if self.log else "range": [self.low, self.high]}
        return self.choices[0] if self.is_fixed else list(self.choices)


def _parse(raw: Any) -> Values:
    if isinstance(raw, Values):
        return raw
    if isinstance(raw, dict):
        return _parse_range(raw)
    items = raw if isinstance(raw, list) else [raw]
    if not items:
        raise ValueError("an empty list offers no choice")
    if any(not isinstance(item, (str, int, float, bool)) for item in items):
        raise ValueError("expected a value, a list of values, {range: [lo, hi]} or {log: [lo, hi]}")
    if not all(isinstance(item, str) or _is_finite(item) for item in items):
        raise ValueError(f"{items} holds a number that is not finite")
    if len(set(items)) != len(items):
        raise ValueError(f"a value appears twice in {items}")
    return Values(tuple(items))


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond every float
        return False


def _parse_range(raw: dict[str, Any]) -> Values:
    if len(raw) != 1 or next(iter(raw)) not in ("log", "range", "choose"):
        raise ValueError("expected {range: [lo, hi]}, {log: [lo, hi]} or {choose: [...]}")
    kind, bounds = next(iter(raw.items()))
    if kind == "choose":
        return _parse(bounds)
    # bool is excluded by name: to Python it is an int.
    numbers = isinstance(bounds, list) and all(
        isinstance(b, (int, float)) and not isinstance(b, bool) for b in bounds
    )
    if not numbers or len(bounds) != 2:
        raise ValueError(f"{kind} needs two numbers, [lo, hi]")
    if not all(map(_is_finite, bounds)):
        raise ValueError(f"{kind} needs two finite numbers, [lo, hi]")
    low, high = float(bounds[0]), float(bounds[1])
    if not low < high:
        raise ValueError(f"{kind} [{low:g}, {high:g}] is empty: lo must be below hi")
    if kind == "log" and low <= 0:
        raise ValueError(f"log [{low:g}, {high:g}] must begin above 0")
    return Values((), low, high, kind == "log")


def _parse_numbers(raw: Any) -> Values:
    values = _parse(raw)
    for choice in values.choices:
        if isinstance(choice, (str, bool)):
            raise ValueError(f"'{choice}' is not a number")
    return values


def _parse_names(raw: Any) -> Values:
    values = _parse(raw)
    if values.is_range or any(not isinstance(c, str) for c in values.choices):
        raise ValueError("expected a name or a list of names")
    return values


def _parse_flags(raw: Any) -> Values:
    values = _parse(raw)
    if values.is_range or any(not isinstance(c, bool) for c in values.choices):
        raise ValueError("expected true, false or [true, false]")
    return values


_plain = PlainSerializer(lambda values: values.to_plain())
AnyValues = Annotated[Values, BeforeValidator(_parse), _plain]
Numbers = Annotated[Values, BeforeValidator(_parse_numbers), _plain]
Names = Annotated[Values, BeforeValidator(_parse_names), _plain]
Flags = Annotated[Values, BeforeValidator(_parse_flags), _plain]


def all_known(values: Values, known: Collection[str], what: str) -> Values:
    """The values; ValueError, with the nearest known name, if one of them is unknown."""
    for choice in values.choices:
        if choice not in known:
            raise ValueError(f"{what} '{choice}' unknown{did_you_mean(str(choice), known)}")
    return values
