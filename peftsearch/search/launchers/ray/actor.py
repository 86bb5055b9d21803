"""One worker of a study on some node of a Ray cluster: what Ray's actor does.

The actor's process is the worker: it trains there, and dies with it. What it says goes to whoever
launched it, event by event. Its order, with the database's address and the password, comes as an
argument of a method: Ray hands those to the process and shows them nowhere, unlike a runtime
environment.

Importing torch takes seconds: that is left until it has been said that the worker has a place.
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
from peftsearch.search.events import Event, TrialAt, WorkerPlaced, WorkerStopped

__all__ = ["WorkerActor"]


class WorkerActor:
    """`run` is called once; `stop`, while it runs, asks the worker to save and end."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._node = os.getppid()

    def stop(self) -> None:
        self._stop.set()

    def run(self, worker: int, order: bytes) -> Iterator[Event]:
        """The worker's events until it has ended. Whatever is not a sentence for the user is
        raised: the worker died.
        """
        yield WorkerPlaced(worker, _node())
        heard: SimpleQueue[Event | Exception | None] = SimpleQueue()
        work = threading.Thread(target=self._work, args=(worker, order, heard.put), daemon=True)
        work.start()
        while (event := heard.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    def _work(
        self, worker: int, packed: bytes, say: Callable[[Event | Exception | None], None]
    ) -> None:
        def hide(text: str) -> str:
            return text  # nothing is known yet that must not be shown

        def tell(event: Event) -> None:
            if not isinstance(event, TrialAt):  # of thousands of workers these would be too many
                say(event)

        try:
            from peftsearch.search.launchers.ray.order import Order

            order = Order.unpacked(packed)
            hide = order.without_password
            order.carry_out(time.monotonic, tell, self._stop.is_set)
            if os.getppid() != self._node:  # that is why it stopped
                raise RuntimeError("its node is gone")
            say(WorkerStopped(worker))
        except PeftsearchError as error:
            say(WorkerStopped(worker, str(error), error.exit_code))
        except Exception as error:
            # Ray keeps what is printed here among the node's logs.
            print(hide(traceback.format_exc()), file=sys.stderr, flush=True)
            say(RuntimeError(hide(f"{type(error).__name__}: {error}")))
        finally:
            say(None)


def _node() -> str:
    """As `ray list nodes` has it, shortened, and the host."""
    import ray

    return f"{ray.get_runtime_context().get_node_id()[:8]} ({socket.gethostname()})"
