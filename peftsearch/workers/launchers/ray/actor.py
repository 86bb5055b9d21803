"""The Ray actor that runs a worker, and streams its events.

Its instructions, with the database's address and password, are a method's argument: Ray passes
those to the process and shows them nowhere, unlike a runtime environment.

Importing torch takes seconds: it is imported after the event that the worker has a place.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from peftsearch.errors import PeftsearchError
from peftsearch.workers.events import Event, TrialProgress, WorkerPlaced, WorkerStopped

__all__ = ["WorkerActor"]


class WorkerActor:
    """`run` is called once; `stop`, called meanwhile, asks the worker to save and end."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._node = os.getppid()

    def stop(self) -> None:
        self._stop.set()

    def run(self, worker: int, job: bytes) -> Iterator[Event]:
        """Yields the worker's events until it has ended. Raises any error that is not a message for
        the user: the worker then counts as dead.
        """
        yield WorkerPlaced(worker, _node())
        heard: SimpleQueue[Event | Exception | None] = SimpleQueue()
        work = threading.Thread(target=self._work, args=(worker, job, heard.put), daemon=True)
        work.start()
        while (event := heard.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    def _work(
        self, worker: int, content: bytes, notify: Callable[[Event | Exception | None], None]
    ) -> None:
        def hide(text: str) -> str:
            return text  # the password is not known yet

        def tell(event: Event) -> None:
            if not isinstance(event, TrialProgress):  # too many with thousands of workers
                notify(event)

        try:
            from peftsearch.workers.launchers.ray.job import WorkerJob

            job = WorkerJob.from_bytes(content)
            hide = job.without_password
            job.run(time.monotonic, tell, self._stop.is_set)
            if os.getppid() != self._node:  # which made the worker stop
                raise RuntimeError("its node is gone")
            notify(WorkerStopped(worker))
        except PeftsearchError as error:
            notify(WorkerStopped(worker, str(error), error.exit_code))
        except Exception as error:
            # Ray keeps what is printed here among the node's logs.
            print(hide(traceback.format_exc()), file=sys.stderr, flush=True)
            notify(RuntimeError(hide(f"{type(error).__name__}: {error}")))
        finally:
            notify(None)


def _node() -> str:
    """The node's id as in `ray list nodes`, shortened, and its host name."""
    import ray

    return f"{ray.get_runtime_context().get_node_id()[:8]} ({socket.gethostname()})"
