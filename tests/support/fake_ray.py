"""As much of the module `ray` as starts workers: each does what its script says.

A script is a list of events and errors; whoever is at its end is silent until told to stop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from peftsearch.workers.events import Event, WorkerStopped

Script = Sequence[Event | Exception]


class RayError(Exception): ...


class OutOfMemoryError(RayError): ...


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class _Method:
    def __init__(self, do: Any) -> None:
        self.remote = do

    def options(self, **_: Any) -> _Method:
        return self


class FakeActor:
    def __init__(self, script: Script) -> None:
        self.left: deque[Event | Exception] = deque(script)
        self.stops = 0
        self.jobs: list[bytes] = []
        self.run, self.stop = _Method(self._run), _Method(self._stop)

    def _run(self, worker: int, job: bytes) -> FakeActor:
        self.worker = worker
        self.jobs.append(job)
        return self

    def _stop(self) -> None:
        self.stops += 1
        self.left.append(WorkerStopped(self.worker))

    def __iter__(self) -> Iterator[Event | Exception]:
        return self

    def __next__(self) -> Event | Exception:
        return self.left.popleft()


class FakeRay:
    """`scripts`: of the actors, in the order in which they are made."""

    class exceptions:
        RayError, OutOfMemoryError, RayTaskError = RayError, OutOfMemoryError, RayTaskError

    def __init__(self, *scripts: Script) -> None:
        self._scripts = deque(scripts)
        self.actors: list[FakeActor] = []
        self.killed: list[FakeActor] = []
        self.asked: dict[str, Any] = {}

    def remote(self, _: type) -> FakeRay:
        return self

    def options(self, **asked: Any) -> _Method:
        self.asked = asked
        return _Method(self._make)

    def _make(self) -> FakeActor:
        self.actors.append(FakeActor(self._scripts.popleft()))
        return self.actors[-1]

    def wait(
        self, streams: list[FakeActor], num_returns: int, timeout: float
    ) -> tuple[list[FakeActor], list[FakeActor]]:
        return [s for s in streams if s.left][:num_returns], []

    def get(self, said: Event | Exception) -> Event:
        if isinstance(said, Exception):
            raise said
        return said

    def kill(self, actor: FakeActor) -> None:
        self.killed.append(actor)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": "alive000" + "0" * 48, "Alive": True}]
