"""Live lines at the bottom of a terminal: progress of the search and of each running trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from peftsearch.api.progress.running import RunningTrial
from peftsearch.lines import clean

__all__ = ["GetOverview", "Overview", "lines_of", "live_lines"]

_BAR = 24
_LEAST = 12
"""Minimum characters of a trial's name, even on a narrow terminal."""


@dataclass(frozen=True)
class Overview:
    """Progress of a search: `share` of its limit, in [0, 1], and the rest as text."""

    counts: str
    share: float
    left: str
    trials: Sequence[RunningTrial]


GetOverview = Callable[[], Overview]
"""Returns the present state of the search."""


def live_lines(console: Console, get_overview: GetOverview) -> Live:
    """A live display of `get_overview()`, refreshed four times a second, below the console's
    output.
    """

    def drawn() -> Group:
        return Group(*lines_of(get_overview(), console.width, console.height // 2))

    return Live(
        get_renderable=drawn,
        console=console,
        refresh_per_second=4,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def lines_of(overview: Overview, width: int, most: int) -> list[Text]:
    """Lines of at most `width` characters: the whole search, then up to `most` trials."""
    done = round(_BAR * overview.share)
    bar = Text("━" * done, "green").append("━" * (_BAR - done), "bright_black")
    whole = Text(overview.counts + "  ").append_text(bar).append(f"  {overview.left}")
    if whole.cell_len > width:
        whole = Text(f"{overview.counts}  {overview.left}")
    shown = overview.trials[: max(1, most)]
    lines = [whole, *(_line(trial, width) for trial in shown)]
    if len(overview.trials) > len(shown):
        lines.append(Text(f"  … and {len(overview.trials) - len(shown)} more"))
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines


def _line(trial: RunningTrial, width: int) -> Text:
    """A line of a trial; its name is shortened to make room for its progress."""
    name = Text(f"  #{trial.number} {clean(trial.name)}")
    name.truncate(max(_LEAST, width - len(trial.progress) - 2), overflow="ellipsis")
    return name.append(f"  {trial.progress}", "cyan")
