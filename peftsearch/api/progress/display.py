"""Displays for the progress of a search: silent, function, plain lines, terminal, notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from rich.console import Console

from peftsearch.api.progress.live import GetOverview, live_lines
from peftsearch.lines import clean, shortened, width_of, wrapped

__all__ = [
    "CallbackDisplay",
    "Display",
    "LinesDisplay",
    "SilentDisplay",
    "TerminalDisplay",
    "display_for",
    "in_notebook",
]


class Display(Protocol):
    """Shows messages as they arrive and, between `begin` and `end`, the state of the search."""

    draws_trials: bool
    """True if running trials are drawn, so that no messages are written about them."""

    def line(self, text: str) -> None: ...

    def begin(self, get_overview: GetOverview) -> None: ...

    def tick(self) -> None:
        """Called several times a second."""

    def end(self) -> None: ...


class SilentDisplay:
    """Shows nothing."""

    draws_trials = True

    def line(self, text: str) -> None:
        pass

    def begin(self, get_overview: GetOverview) -> None:
        pass

    def tick(self) -> None:
        pass

    def end(self) -> None:
        pass


class CallbackDisplay(SilentDisplay):
    """Calls a function with each line: `print`, `logging.info`, a user's own."""

    draws_trials = False

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def line(self, text: str) -> None:
        self._write(text)


class LinesDisplay(SilentDisplay):
    """Plain lines on stderr."""

    draws_trials = False

    def line(self, text: str) -> None:
        lines = wrapped(shortened(clean(text)), width_of(sys.stderr))
        print("\n".join(lines), file=sys.stderr, flush=True)


class TerminalDisplay(SilentDisplay):
    """Lines on stderr, and below them live lines that rich redraws from its own thread."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def line(self, text: str) -> None:
        for part in wrapped(shortened(clean(text)), width_of(sys.stderr)):
            self._console.print(part)

    def begin(self, get_overview: GetOverview) -> None:
        self._live = live_lines(self._console, get_overview)
        self._live.start()

    def end(self) -> None:
        self._live.stop()


def display_for(progress: bool | Callable[[str], object]) -> Display:
    """The display for the `progress` argument: False is silent, a function is called with each
    line; True is a bar in a notebook, live lines on a terminal, plain lines elsewhere.
    """
    if callable(progress):
        return CallbackDisplay(progress)
    if not progress:
        return SilentDisplay()
    if in_notebook():
        from peftsearch.api.progress.notebook import NotebookBar

        return NotebookBar()
    return TerminalDisplay() if sys.stderr.isatty() else LinesDisplay()


def in_notebook() -> bool:
    """True in a Jupyter kernel (Colab's, too); asks IPython only if it was imported already."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return any(base.__name__ == "ZMQInteractiveShell" for base in type(shell).__mro__)
