"""Progress of a running search: turns worker events into messages and a state to draw."""

from __future__ import annotations

import time

from peftsearch.api.progress.display import Display, display_for
from peftsearch.api.progress.live import Overview
from peftsearch.api.progress.running import RunningTrials, interrupt_message, time_limit_message
from peftsearch.errors import MissingError, PeftsearchError
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyRecord, TrialResult
from peftsearch.wording import agree, counted, duration
from peftsearch.workers.events import (
    Event,
    StopRequested,
    TrialBegan,
    TrialEnded,
    TrialEvaluated,
    TrialProgress,
    TrialRequeued,
    WorkerPlaced,
    WorkerReady,
    WorkersPending,
    WorkerStopped,
)
from peftsearch.workers.limits import Limits

__all__ = ["Progress"]


class Progress:
    """Receives a search's events. `fatal` is the error that ended a worker, if any."""

    def __init__(
        self, folder: StudyFolder, limits: Limits, workers: int, display: Display | None = None
    ) -> None:
        self.display = display or display_for(True)
        self.limits, self.workers = limits, workers
        record = folder.read()
        self.info = record.info
        self.results = {r.number: r for r in record.results}
        self.running = RunningTrials()
        self.entered = time.monotonic()
        self.began: float | None = None
        """Time at which the first worker had loaded model and data; the limit counts from here."""
        self.announced_time_limit = False
        self.stops = 0
        self.volume = record.hypervolume
        self.hidden_infeasible = 0
        """Infeasible trials since the last one shown, counted instead of shown."""
        self.last_shown_is_infeasible = False
        self.nodes: dict[int, str] = {}
        """Worker number → node, for workers on a cluster."""
        self.fatal: PeftsearchError | None = None

    def __enter__(self) -> Progress:
        self.display.begin(self._overview)
        done_before = f", {counted(len(self.results), 'trial')} done" if self.results else ""
        self._show(
            f"study {self.info.name}: {self.info.model} on {self.info.task_name}, space "
            f"{self.info.space}, {counted(self.workers, 'worker')}{done_before}"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._flush_infeasible()
        self.display.end()

    def handle(self, event: Event | None) -> None:
        """Process one event; None only updates the clock."""
        if isinstance(event, StopRequested):
            self.stops = event.times
            self._show(interrupt_message(len(self.running), event.times))
        elif isinstance(event, WorkerReady | WorkerPlaced | WorkersPending | WorkerStopped):
            self._of_worker(event)
        elif event is not None:
            self._of_trial(event)
        self._announce_time_limit()
        self.display.tick()

    def _of_trial(
        self, event: TrialBegan | TrialProgress | TrialEvaluated | TrialEnded | TrialRequeued
    ) -> None:
        if isinstance(event, TrialProgress):
            self.running.update(event, time.monotonic())
        elif isinstance(event, TrialEnded):
            self._ended(event.result)
        elif isinstance(event, TrialRequeued):
            self._requeued(event.number)
        else:
            if isinstance(event, TrialBegan):
                self.running.begin(event)
            self._detail(event)

    def _of_worker(
        self, event: WorkerReady | WorkerPlaced | WorkersPending | WorkerStopped
    ) -> None:
        if isinstance(event, WorkerReady):
            self._ready()
        elif isinstance(event, WorkerPlaced):
            self.nodes[event.worker] = event.node
            self._show(f"worker {event.worker} starts on node {event.node}")
        elif isinstance(event, WorkersPending):
            self._show(
                f"{event.workers} of {counted(self.workers, 'worker')} "
                f"{agree(event.workers, 'has', 'have')} no place in the cluster yet: each "
                f"needs {event.resources}"
            )
        else:
            self._stopped(event)

    def _ready(self) -> None:
        if self.began is None:
            self.began = time.monotonic()
            if self.limits.seconds is not None:
                self._show(f"model and data are loaded: {duration(self.limits.seconds)} begin")

    def _announce_time_limit(self) -> None:
        """Once the time limit is reached, report what happens to the running trials."""
        now = time.monotonic()
        if (
            self.began is None
            or self.announced_time_limit
            or now < self.limits.deadline(self.began)
        ):
            return
        self.announced_time_limit = True
        if self.running and not self.stops:
            most_s = max(0.0, self.limits.hard_deadline(self.began) - now)
            self._show(time_limit_message(len(self.running), self.running.left_s(now), most_s))

    def _requeued(self, number: int) -> None:
        trial = self.running.end(number)
        if trial is not None:
            self._show(f"#{number} is saved at {trial.position}")

    def _stopped(self, event: WorkerStopped) -> None:
        self.running.end_all_of(event.worker)
        if event.error is None:
            if event.worker in self.nodes:
                self._show(f"worker {event.worker} ended on node {self.nodes[event.worker]}")
            return
        self._show(f"worker {event.worker}: {event.error}")
        if event.exit_code not in (0, 1):
            kind = MissingError if event.exit_code == 3 else PeftsearchError
            self.fatal = kind(event.error)

    def _detail(self, event: TrialBegan | TrialEvaluated) -> None:
        if self.display.draws_trials:
            return
        if isinstance(event, TrialBegan):
            self._show(f"#{event.number} begins: {event.description}")
        elif event.value.fraction < 1:
            self._show(
                f"#{event.number} at {event.value.fraction:.0%}: {self.info.metric.name} "
                f"{self.info.metric.format(event.value.metric)}, {event.decision}"
            )

    def _ended(self, result: TrialResult) -> None:
        self.running.end(result.number)
        self.results[result.number] = result
        record = self._record()
        self.volume = record.hypervolume
        on_front = any(point.number == result.number for point in record.front)
        if result.state == "infeasible" and self.last_shown_is_infeasible:
            self.hidden_infeasible += 1
        elif on_front or result.state == "failed" or not self.display.draws_trials:
            self._show(self._line(result, on_front))
            self.last_shown_is_infeasible = result.state == "infeasible"

    def _line(self, result: TrialResult, on_front: bool) -> str:
        mark = "★" if on_front else " "
        name = f"{result.method}: " if result.method not in (None, result.description) else ""
        what = f"{mark} #{result.number} {name}{result.description}"
        if result.state == "duplicate":
            return f"{what}: the same configuration as #{result.same_as}"
        if result.state in ("failed", "infeasible"):
            return f"{what}: {result.cause or result.state} {result.message or ''}".rstrip()
        stopped = "" if result.state == "full" else " (stopped early)"
        return (
            f"{what}: {self.info.metric.name} {self.info.metric.format(result.metric)} "
            f"at {result.tuned_pct:.3g} %"
            f" tuned{stopped}, {result.wall_s:.0f} s"
        )

    def _overview(self) -> Overview:
        """The state to draw; a terminal calls this from its own thread."""
        states = [result.state for result in list(self.results.values())]
        full, stopped, failed = (states.count(s) for s in ("full", "stopped", "failed"))
        return Overview(
            counts=(
                f"{full} full, {stopped} stopped, {failed} failed, hypervolume {self.volume:.3f}"
            ),
            share=self._done(full + stopped + failed),
            left=self._left(),
            trials=self.running.all(),
        )

    def _done(self, evaluated: int) -> float:
        shares = [0.0]
        if self.limits.trials:
            shares.append(evaluated / self.limits.trials)
        if self.limits.seconds and self.began is not None:
            shares.append((time.monotonic() - self.began) / self.limits.seconds)
        return min(1.0, max(shares))

    def _left(self) -> str:
        now = time.monotonic()
        if self.stops:
            return "stopping"
        if self.began is None:
            return f"loading model and data, {now - self.entered:.0f} s"
        if self.limits.seconds is None:
            return _clock(now - self.began)
        if now < self.limits.deadline(self.began):
            return f"{_clock(self.limits.deadline(self.began) - now)} left"
        return f"finishing, at most {_clock(self.limits.hard_deadline(self.began) - now)}"

    def _record(self) -> StudyRecord:
        ordered = tuple(self.results[number] for number in sorted(self.results))
        return StudyRecord(info=self.info, results=ordered)

    def _show(self, line: str) -> None:
        self._flush_infeasible()
        self.display.line(line)

    def _flush_infeasible(self) -> None:
        if self.hidden_infeasible:
            self.display.line(f"  {self.hidden_infeasible} more like it")
        self.hidden_infeasible, self.last_shown_is_infeasible = 0, False


def _clock(seconds: float) -> str:
    """`3:05`."""
    whole = max(0, int(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
