"""Parsing option values into the form that studies record: tuples, absolute paths, numbers."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftsearch.api.defaults import BOUNDS
from peftsearch.api.options import is_given
from peftsearch.api.request import separator_of
from peftsearch.errors import UsageError

if TYPE_CHECKING:
    from peftsearch.space.space import Space

__all__ = ["is_off", "parse_options"]

_SEVERAL = ("text", "label", "without")
_SWITCHES = ("no_header", "no_stopping", "resume", "dry_run", "json")


def parse_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the user gave, out of all parameters of `search`, in the form that studies
    record: repeated options as tuples, separators as characters, the artifacts' folder as an
    absolute path. UsageError for a value of the wrong type or out of bounds.
    """
    return {name: _value(name, value) for name, value in parameters.items() if is_given(value)}


def is_off(name: str, value: Any) -> bool:
    """Whether a parameter that is on by default is off; UsageError for anything but a boolean."""
    if not isinstance(value, bool):
        raise UsageError(f"{name}= must be True or False, not {value!r}")
    return not value


def _value(name: str, value: Any) -> Any:
    if name in BOUNDS:
        return _number(name, value)
    if name in _SWITCHES:
        return _switch(name, value)
    if name in _SEVERAL:
        return _several(name, value)
    if name == "languages":
        return _languages(value)
    if name == "space":
        return _space(value)
    text = _text(name, value)
    if name == "studies":
        return Path(text)
    if name == "artifacts":
        return _artifacts(text)
    return separator_of(text) if name == "separator" else text


def _number(name: str, value: Any) -> int | float:
    bounds = BOUNDS[name]
    try:
        if isinstance(value, bool | str):
            raise TypeError
        number = operator.index(value) if bounds.whole else float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{_flag(name)} must be {bounds}, not {value!r}") from error
    if number < bounds.least or (bounds.most is not None and number > bounds.most):
        raise UsageError(f"{_flag(name)} must be {bounds}, not {value!r}")
    return number


def _switch(name: str, value: Any) -> bool:
    if value is not True:
        raise UsageError(f"{_flag(name)} must be True or False, not {value!r}")
    return True


def _several(name: str, value: Any) -> tuple[str, ...]:
    """Names as a tuple; a single name becomes a tuple of one."""
    one_or_more = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    return tuple(_text(name, one) for one in one_or_more)


def _text(name: str, value: Any) -> str:
    """A name, or a path as text."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise UsageError(f"{_flag(name)} must be text, not {type(value).__name__}")
    return text


def _space(value: Any) -> str | Space:
    from peftsearch.space.space import Space

    return value if isinstance(value, Space) else _text("space", value)


def _languages(value: Any) -> tuple[str, str]:
    codes = value.split(",") if isinstance(value, str) else list(value)
    codes = [str(code).strip() for code in codes]
    if len(codes) != 2 or not all(codes):
        raise UsageError("--languages takes two codes, source and target: en_XX,ro_RO")
    return codes[0], codes[1]


def _artifacts(text: str) -> str:
    """The absolute path of a folder; bucket addresses and file:// are unchanged."""
    from peftsearch.paths import absolute

    return text if "://" in text else absolute(text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
