"""Spawning processes of our own: without the user's script, and with Ctrl-C blocked at first."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType

__all__ = ["PARENT_SIGNALS", "WorkerContext", "signals_blocked", "without_main"]

PARENT_SIGNALS = {signal.SIGINT, signal.SIGTERM}
"""Signals that the parent handles for its processes, too."""


class _Process(SpawnProcess):
    def start(self) -> None:
        with without_main():
            super().start()


class WorkerContext(SpawnContext):
    """A spawn context whose processes do not import the caller's `__main__`."""

    Process = _Process


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """In this context, spawned processes do not import this one's `__main__`.

    multiprocessing has a spawned process import its parent's main module, for objects defined
    there. Workers need none, and the import does harm: a script without `if __name__ ==
    "__main__":` would search again in every worker, and of `python - < script` there is no file to
    import. Python takes the module's name and path from `sys.modules` when the process starts.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM for a process started in this context until it unblocks them: Ctrl-C
    goes to the whole process group, and would end its imports with a traceback.
    """
    # multiprocessing starts its resource tracker with the first process, and unblocks signals then.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENT_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
