"""What a worker process may do instead of searching (imported by the processes themselves)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from peftsearch.search.events import Event, TrialBegan
from peftsearch.search.limits import Limits, Means

Emit = Callable[[Event], None]
Stop = Callable[[], bool]


def chatter_and_one_death(
    root: str, worker: int, limits: Limits, began: float, means: Means, emit: Emit, stop: Stop
) -> None:
    """Worker 1 reports and is killed, once; the others talk without a pause until told to stop."""
    died = Path(root) / "died"
    if worker == 1 and not died.exists():
        died.touch()
        emit(TrialBegan(1, 7, "its last words"))
        os.kill(os.getpid(), signal.SIGKILL)
    while not stop():
        emit(TrialBegan(worker, 0, "chatter"))
        time.sleep(0.01)


def always_dies(
    root: str, worker: int, limits: Limits, began: float, means: Means, emit: Emit, stop: Stop
) -> None:
    os._exit(3)
