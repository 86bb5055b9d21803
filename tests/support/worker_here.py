"""A search's worker in this process: starting one takes longer than what tests search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from peftsearch.search.events import Event
from peftsearch.search.limits import Limits, Means
from peftsearch.search.worker import Worker

__all__ = ["WorkerHere"]


class WorkerHere:
    """In place of `LocalWorkers`: one worker, whose events come once it has ended."""

    def __init__(self, root: str, count: int, limits: Limits, means: Means) -> None:
        self.arguments = (root, 0, limits, time.monotonic, means)

    def run(self, on_death: Callable[[int], None]) -> Iterator[Event]:
        events: list[Event] = []
        Worker(*self.arguments, events.append, lambda: False).run()
        yield from events
