"""Handling Ctrl-C and SIGTERM in the process that started workers."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from types import FrameType
from typing import Protocol

from peftsearch.workers.events import Event, StopRequested

__all__ = ["Stoppable", "interruptible", "with_stop_requests"]


class Stoppable(Protocol):
    """Workers, wherever they run."""

    def stop(self) -> None:
        """Ask all workers to checkpoint their trials and exit."""

    def kill(self) -> None: ...


@contextlib.contextmanager
def interruptible(workers: Stoppable) -> Iterator[list[int]]:
    """Ask the workers to save and end on the first Ctrl-C or SIGTERM, kill them on the second.
    Yields the list of signals caught, which stays empty outside the main thread: Python hears of
    signals there only.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def handle(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) > 1:
            workers.kill()
        workers.stop()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def with_stop_requests(
    events: Iterable[Event | None], caught: Sequence[int]
) -> Generator[Event | None, None, None]:
    """The events, and a `StopRequested` for every signal within one tick of it. A handler cannot
    print: it may interrupt a print.
    """
    told = 0
    for event in events:
        while told < len(caught):
            told += 1
            yield StopRequested(told)
        yield event
