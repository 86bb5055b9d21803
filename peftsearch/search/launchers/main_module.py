"""Worker processes that do not run the user's script again."""

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
    """multiprocessing's spawning, of processes that know nothing of the caller's `__main__`."""

    Process = _Process


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """A process spawned meanwhile knows nothing of this one's `__main__`.

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
