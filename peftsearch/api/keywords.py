"""Rewriting messages for Python callers: command-line flags become keyword arguments."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from peftsearch.api.options import CHANGEABLE, FIXED, NEUTRAL
from peftsearch.errors import PeftsearchError

if TYPE_CHECKING:
    from peftsearch.api.progress.display import Display
    from peftsearch.api.progress.live import Overview

__all__ = ["KeywordDisplay", "flags_to_keywords", "keywords_in_errors"]

_NAMES = {*(option.name for option in FIXED), *CHANGEABLE, *NEUTRAL}
_SWITCHES = {
    "no_header": "no_header=True",
    "no_stopping": "stopping=False",
    "resume": "resume=True",
}
_COMMAND = r"peftsearch [a-z]+ [^;:,]*"
"""A quoted command keeps its flags."""
_VALUE = (
    r"(?:=| )(?P<value>'[^']*'|-?\d[\d.]*(?![\w./])|classification|multilabel|regression|seq2seq"
    r"|(?:tpe|nsga2|random|none|lora|all)(?![\w-]))"
)
_FLAG = re.compile(rf"{_COMMAND}|(?<![\w-])--(?P<flag>[a-z][a-z-]*)(?:{_VALUE})?")


def flags_to_keywords(sentence: str) -> str:
    """The sentence with keyword arguments in place of flags.

    >>> flags_to_keywords("created with --seed 9, not --seed 0: leave out --max-length")
    'created with seed=9, not seed=0: leave out max_length='
    """
    return _FLAG.sub(_keyword, sentence)


def _keyword(found: re.Match[str]) -> str:
    name = (found["flag"] or "").replace("-", "_")
    if name not in _NAMES:
        return found[0]
    if found["value"] is not None:
        value = found["value"]
        return f"{name}={value!r}" if value[0].isalpha() else f"{name}={value}"
    return _SWITCHES.get(name, f"{name}=")


@contextlib.contextmanager
def keywords_in_errors() -> Iterator[None]:
    """In this context, errors name keyword arguments instead of flags."""
    try:
        yield
    except PeftsearchError as error:
        error.args = (flags_to_keywords(str(error)),)
        raise


class KeywordDisplay:
    """A display whose lines name keyword arguments instead of flags."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self.draws_trials = display.draws_trials

    def line(self, text: str) -> None:
        self._display.line(flags_to_keywords(text))

    def begin(self, get_overview: Callable[[], Overview]) -> None:
        self._display.begin(get_overview)

    def tick(self) -> None:
        self._display.tick()

    def end(self) -> None:
        self._display.end()
