"""Validation of values read from files; errors give the name, and bounds or the nearest name.

All raise ConfigurationError; `what` names the value in the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peftsearch.errors import ConfigurationError, did_you_mean

__all__ = [
    *("check_flag", "check_keys", "check_name", "check_number", "check_share", "check_whole"),
    *("checked_mapping", "positive_number"),
]


def check_name(what: str, value: Any, known: Sequence[str]) -> None:
    """Refuse a value that is not one of the `known` names."""
    if not isinstance(value, str) or value not in known:
        raise ConfigurationError(f"{what} '{value}' unknown{did_you_mean(str(value), known)}")


def check_number(what: str, value: Any, low: float, high: float) -> None:
    """Refuse anything but a number above `low` and at most `high`; a boolean is not a number."""
    if type(value) not in (int, float) or not low < value <= high:
        raise ConfigurationError(f"{what} {value} is not between {max(low, 0):g} and {high:g}")


def check_share(what: str, value: Any) -> None:
    """Refuse anything but a number from 0 to below 1."""
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise ConfigurationError(f"{what} {value} is not between 0 and 1")


def check_whole(what: str, value: Any, low: int, high: int) -> None:
    """Refuse anything but a whole number from `low` to `high`, both included."""
    if type(value) is not int or not low <= value <= high:
        raise ConfigurationError(f"{what} {value} is not a whole number between {low} and {high}")


def check_flag(what: str, value: Any) -> None:
    """Refuse anything but true and false."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{what} {value} is not true or false")


def positive_number(what: str, value: Any) -> float:
    """A finite number above 0, as a float."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        raise ConfigurationError(f"{what}={value} must be a positive number")
    return float(value)


def checked_mapping(what: str, json: Any) -> dict[str, Any]:
    """A copy of a JSON object; refuse a list, a number, a text."""
    if not isinstance(json, Mapping):
        raise ConfigurationError(f"{what} must be a mapping, not {type(json).__name__}")
    return dict(json)


def check_keys(what: str, json: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse keys that are not `known`."""
    known = set(known)
    for key in json:
        if key not in known:
            raise ConfigurationError(f"{what} has no key '{key}'{did_you_mean(str(key), known)}")
