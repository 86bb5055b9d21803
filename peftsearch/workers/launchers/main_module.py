"""Spawning worker processes that do not import the user's script."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType

__all__ = ["WorkerContext", "without_main"]


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
