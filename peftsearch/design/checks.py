"""Checks of values that come from files: each refuses with the name and the bounds."""

from __future__ import annotations

from typing import Any

from peftsearch.errors import ConfigurationError, did_you_mean

__all__ = ["check_name", "check_number", "check_share", "check_whole"]


def check_name(what: str, value: Any, known: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in known:
        raise ConfigurationError(f"{what} '{value}' unknown{did_you_mean(str(value), known)}")


def check_number(what: str, value: Any, low: float, high: float) -> None:
    if type(value) not in (int, float) or not low < value <= high:
        raise ConfigurationError(f"{what} {value} is not between {max(low, 0):g} and {high:g}")


def check_share(what: str, value: Any) -> None:
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise ConfigurationError(f"{what} {value} is not between 0 and 1")


def check_whole(what: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ConfigurationError(f"{what} {value} is not a whole number between {low} and {high}")
