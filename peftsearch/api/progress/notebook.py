"""A notebook's display: tqdm's bar for the whole search, with lines above it."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

from peftsearch.api.progress.live import GetOverview
from peftsearch.lines import clean, shortened

__all__ = ["NotebookBar"]

_PARTS = 1000
"""Steps of the bar."""
_EVERY_S = 1.0


class NotebookBar:
    """A bar of the search's share of its limit; its text counts trials and names what trains.

    tqdm draws it as a widget where ipywidgets is installed, and as text elsewhere.
    """

    draws_trials = True

    def __init__(self) -> None:
        self._bar: Any = None
        self._get_overview: GetOverview | None = None
        self._drawn_s = 0.0

    def line(self, text: str) -> None:
        shown = shortened(clean(text))
        if self._bar is None:
            print(shown, flush=True)
        else:
            self._bar.write(shown, file=sys.stdout)

    def begin(self, get_overview: GetOverview) -> None:
        with warnings.catch_warnings():  # tqdm warns where ipywidgets is not installed
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
        self._get_overview = get_overview
        self._bar = tqdm(total=_PARTS, bar_format="{percentage:3.0f}% |{bar}| {desc}")
        self._draw()

    def tick(self) -> None:
        if time.monotonic() - self._drawn_s >= _EVERY_S:
            self._draw()

    def end(self) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.close()
            self._bar = None

    def _draw(self) -> None:
        if self._bar is None or self._get_overview is None:
            return
        self._drawn_s = time.monotonic()
        overview = self._get_overview()
        running = ", ".join(f"#{trial.number} {trial.progress}" for trial in overview.trials)
        parts = (overview.counts, overview.left, running)
        self._bar.n = round(_PARTS * overview.share)
        self._bar.set_description_str(clean("; ".join(filter(None, parts))))
