"""Workers on a Ray cluster: placed on its nodes, and restarted elsewhere when they die.

Ray finds a node with free CPUs and GPU for each. Trials are not known here: the study itself gives
those of a dead worker to another one, once its heartbeats are missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from peftsearch.workers.events import (
    Event,
    TrialEnded,
    WorkerPlaced,
    WorkerReady,
    WorkersPending,
    WorkerStopped,
)
from peftsearch.workers.interrupt import interruptible, with_stop_requests
from peftsearch.workers.launchers.ray.actor import WorkerActor
from peftsearch.workers.launchers.ray.cluster import Share, connected
from peftsearch.workers.launchers.ray.job import WorkerJob

__all__ = ["RayWorkers", "run_on_ray"]

_MAX_DEATHS = 5
"""Deaths of a worker in a row, without a finished trial, after which it is not restarted."""
_PAUSE_S = 2.0
"""Seconds before a worker is started again, doubled with each such death: for some seconds Ray does
not notice that a node is gone, and may place workers there.
"""
_POLL_S = 0.5
_WAIT_NOTICE_S = 30.0
"""Seconds after which workers that are not yet placed are reported."""


def run_on_ray(
    address: str,
    job: WorkerJob,
    workers: int,
    share: Share,
    on_event: Callable[[Event | None], None],
) -> bool:
    """Start workers of a study and wait until all have ended; `on_event` is called with every
    event, and with None every now and then. Returns whether the user interrupted them.
    """
    with connected(address) as ray:
        started = RayWorkers(ray, job, workers, share)
        with interruptible(started) as interrupted:
            for event in with_stop_requests(started.run(), interrupted):
                on_event(event)
        return bool(interrupted)


@dataclass
class _Started:
    """A started worker. `node`: None until it has a place."""

    worker: int
    actor: Any
    deaths: int
    node: str | None = None


@dataclass
class _Due:
    """A worker to start again at `when`, in `time.monotonic()` seconds."""

    worker: int
    deaths: int
    when: float


class RayWorkers:
    """`count` workers with the same job, except for their number and the time left."""

    def __init__(self, ray: Any, job: WorkerJob, count: int, share: Share) -> None:
        self._ray, self._job, self._count = ray, job, count
        self.share = share
        self.began = time.monotonic()
        self._deadline = self._hard_deadline = float("inf")
        """Unknown until the first worker has loaded model and data."""
        self._running: dict[Any, _Started] = {}
        """By Ray's stream of the worker's events."""
        self._due: list[_Due] = []
        self._ended_well = self._stop = self._stop_sent = self._kill = self._wait_notified = False

    def stop(self) -> None:
        """Ask all workers to checkpoint their trials and end."""
        self._stop = True

    def kill(self) -> None:
        """End all workers at once."""
        self._kill = True

    def run(self) -> Iterator[Event | None]:
        """Yields every event, and None every now and then, until the last worker has ended."""
        for worker in range(self._count):
            self._start(worker)
        try:
            while (self._running or self._due) and not self._kill:
                self._start_due()
                yield from self._received()
                self._apply_stop()
                yield from self._wait_notice()
        finally:
            for started in self._running.values():
                self._ray.kill(started.actor)

    def _start(self, worker: int, deaths: int = 0) -> None:
        actor = (
            self._ray.remote(WorkerActor)
            .options(
                num_cpus=self.share.cpus,
                num_gpus=self.share.gpus,
                scheduling_strategy="SPREAD",
                max_concurrency=2,  # `stop` can be called while `run` runs
            )
            .remote()
        )
        limits = self._job.limits
        if self._deadline < float("inf"):
            # One that starts later has the time that is left of all.
            limits = replace(limits, seconds=self._deadline - time.monotonic())
        job = replace(self._job, worker=worker, limits=limits)
        events = actor.run.options(num_returns="streaming").remote(worker, job.to_bytes())
        self._running[events] = _Started(worker, actor, deaths)

    def _start_due(self) -> None:
        now = time.monotonic()
        due = [one for one in self._due if one.when <= now]
        self._due = [one for one in self._due if one.when > now]
        for one in due:
            self._start(one.worker, one.deaths)

    def _received(self) -> Iterator[Event | None]:
        """One event of every worker that sent any; None if none did within `_POLL_S`."""
        if not self._running:
            time.sleep(_POLL_S)
            yield None
            return
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_POLL_S)
        if not ready:
            yield None
            return
        # Then all that are ready: one busy worker must not hold up the others' events.
        everyone = list(self._running)
        ready, _ = self._ray.wait(everyone, num_returns=len(everyone), timeout=0)
        for events in ready:
            try:
                event = self._ray.get(next(events))
            except (self._ray.exceptions.RayError, StopIteration) as error:
                yield from self._died(self._running.pop(events), error)
            else:
                yield self._record(events, event)

    def _record(self, events: Any, event: Event) -> Event:
        """The event, after taking in what it says of its worker."""
        started = self._running[events]
        if isinstance(event, WorkerPlaced):
            started.node = event.node
        elif isinstance(event, WorkerReady) and self._deadline == float("inf"):
            now = time.monotonic()
            self._deadline = self._job.limits.deadline(now)
            self._hard_deadline = self._job.limits.hard_deadline(now)
        elif isinstance(event, TrialEnded) and event.result.state in ("full", "stopped", "failed"):
            started.deaths = 0
        elif isinstance(event, WorkerStopped):
            del self._running[events]
            self._ray.kill(started.actor)  # its share is free at once
            self._ended_well |= event.error is None
        return event

    def _died(self, started: _Started, error: Exception) -> Iterator[Event]:
        """The event of a worker that died; it is due to start again unless it died too often."""
        deaths = started.deaths + 1
        where = f" on {started.node}" if started.node else ""
        text = f"died{where} ({self._death_reason(started, error)})"
        if deaths >= _MAX_DEATHS:
            text += f": {deaths} times without finishing a trial, not restarted"
        elif not self._is_over:
            text += ", restarting"
            when = time.monotonic() + _PAUSE_S * 2 ** (deaths - 1)
            self._due.append(_Due(started.worker, deaths, when))
        yield WorkerStopped(started.worker, text, 1)

    def _death_reason(self, started: _Started, error: Exception) -> str:
        """The cause of a worker's death, for the message."""
        if isinstance(error, self._ray.exceptions.OutOfMemoryError):
            return "out of memory"
        if isinstance(error, self._ray.exceptions.RayTaskError):
            return str(error.cause)
        alive = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
        on_node = started.node is not None and started.node.split()[0]
        gone = on_node and not any(name.startswith(on_node) for name in alive)
        return "its node is gone" if gone else "its process ended"

    @property
    def _is_over(self) -> bool:
        """Whether no more workers are to be started. Workers wait for one another, so one that
        ended by itself found no work left for any of them. Workers without a place in the cluster
        are waited for until the time limit.
        """
        now = time.monotonic()
        has_place = any(started.node is not None for started in self._running.values())
        in_vain = not has_place and now > self._job.limits.deadline(self.began)
        return self._stop or self._ended_well or now > self._deadline or in_vain

    def _apply_stop(self) -> None:
        """Tell workers with a place to stop, once, and kill those without one when the search is
        over. The time limit is kept here, since a worker's clock begins when it has loaded.
        """
        if self._is_over:
            self._due.clear()
            for events, started in list(self._running.items()):
                if started.node is None:
                    self._ray.kill(started.actor)
                    del self._running[events]
        self._stop |= time.monotonic() > self._hard_deadline
        if self._stop and not self._stop_sent:
            self._stop_sent = True
            for started in self._running.values():
                started.actor.stop.remote()

    def _wait_notice(self) -> Iterator[WorkersPending]:
        """One event, once, if workers have waited for a place for long."""
        waiting = sum(started.node is None for started in self._running.values())
        late = time.monotonic() - self.began > _WAIT_NOTICE_S
        if waiting and late and not self._wait_notified:
            self._wait_notified = True
            yield WorkersPending(waiting, str(self.share))
