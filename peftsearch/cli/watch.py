"""Watching workers, then printing the frontier: shared by `search`, `worker` and `launch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

from peftsearch.api.watch import Outcome, Run
from peftsearch.cli.open_study import studies_flag
from peftsearch.cli.terminal.console import print_note

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder
    from peftsearch.workers.limits import Limits, WorkerSettings

__all__ = ["watch", "watch_local"]

P = ParamSpec("P")


def watch_local(
    run: Run,
    folder: StudyFolder,
    limits: Limits,
    workers: int | None,
    settings: WorkerSettings,
    as_json: bool,
) -> None:
    """`run` workers on this machine (None: a default number), then print the frontier."""
    from peftsearch.api import watch as watching
    from peftsearch.api.progress.display import display_for

    outcome = watching.watch_local(
        _handling_interrupts(run), folder, limits, workers, settings, display_for(True)
    )
    _print(outcome, as_json)


def watch(
    run: Callable[[Callable[[Any], None]], bool],
    folder: StudyFolder,
    limits: Limits,
    workers: int,
    as_json: bool,
) -> None:
    """`run` workers wherever they are, then print the frontier."""
    from peftsearch.api import watch as watching
    from peftsearch.api.progress.display import display_for

    outcome = watching.watch(_handling_interrupts(run), folder, limits, workers, display_for(True))
    _print(outcome, as_json)


def _handling_interrupts(run: Callable[P, bool]) -> Callable[P, bool]:
    """`run`, which handles Ctrl-C itself."""
    from peftsearch.cli.terminal.interrupt import without_acknowledgement

    def running(*arguments: P.args, **named: P.kwargs) -> bool:
        with without_acknowledgement():
            return run(*arguments, **named)

    return running


def _print(outcome: Outcome, as_json: bool) -> None:
    """Print the frontier, if any; then raise the error that the search ended with, if any."""
    from peftsearch.cli.frontier import print_frontier

    folder = outcome.folder
    if outcome.found:
        print_frontier(folder, outcome.record, as_json)
    outcome.report_or_raise(
        print_note, f"peftsearch search --study {folder.name} --resume{studies_flag(folder)}"
    )
