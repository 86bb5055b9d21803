"""A search whose worker is this process: starting another takes longer than tiny searches do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from peftsearch.workers import run as search_run
from peftsearch.workers.events import Event
from peftsearch.workers.limits import Limits, WorkerSettings
from peftsearch.workers.worker import Worker

__all__ = ["search_in_this_process"]


class _WorkerHere:
    def __init__(self, root: str, count: int, limits: Limits, settings: WorkerSettings) -> None:
        self.arguments = (root, 0, limits, time.monotonic, settings)

    def run(self, on_death: Callable[[int], None]) -> Iterator[Event]:
        events: list[Event] = []
        Worker(*self.arguments, events.append, lambda: False).run()
        yield from events


def search_in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Let `search` start no processes until `patch` is undone."""
    patch.setattr(search_run, "LocalWorkers", _WorkerHere)
