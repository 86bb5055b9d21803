"""What a search shows while it runs: a bar and a line for each step on the frontier in a terminal,
plain lines elsewhere. All of it on stderr.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from peftsearch.cli.console import clean, shortened
from peftsearch.errors import MissingError, PeftsearchError
from peftsearch.search.events import (
    Event,
    TrialBegan,
    TrialEnded,
    TrialEvaluated,
    WorkerPlaced,
    WorkerReady,
    WorkerStopped,
    WorkersWait,
)
from peftsearch.search.folder import StudyFolder
from peftsearch.search.limits import Limits
from peftsearch.search.outcome import front_of, hypervolume_of
from peftsearch.search.records import StudyRecord, TrialResult

__all__ = ["Progress"]


class Progress:
    """Hears a search's events. `fatal` is the error that ended a worker, if one did."""

    def __init__(self, folder: StudyFolder, limits: Limits, workers: int) -> None:
        self.limits, self.workers = limits, workers
        record = folder.read()
        self.info = record.info
        self.results = {r.number: r for r in record.results}
        self.began = time.monotonic()
        self.ready = 0
        self.more_misfits = 0
        """Infeasible trials since one was told of, of which no line is."""
        self.last_said_misfit = False
        self.nodes: dict[int, str] = {}
        """Where the workers of a cluster are."""
        self.fatal: PeftsearchError | None = None
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=1.0, left="")

    def __enter__(self) -> Progress:
        self.bar.start()
        going_on = f", {len(self.results)} trials done" if self.results else ""
        self._say(
            f"study {self.info.name}: {self.info.model} on {self.info.task_name}, space "
            f"{self.info.space}, {self.workers} worker{'s' if self.workers > 1 else ''}{going_on}"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._say_misfits()
        self.bar.stop()

    def hear(self, event: Event | None) -> None:
        """One event, or None for a tick of the clock."""
        if isinstance(event, WorkerReady):
            self.ready += 1
        elif isinstance(event, TrialEnded):
            self._ended(event.result)
        elif isinstance(event, WorkerStopped):
            self._stopped(event)
        elif isinstance(event, WorkerPlaced):
            self.nodes[event.worker] = event.node
            self._say(f"worker {event.worker} starts on node {event.node}")
        elif isinstance(event, WorkersWait):
            self._say(
                f"{event.workers} of {self.workers} workers have no place in the cluster yet: each "
                f"wants {event.wants}"
            )
        elif isinstance(event, TrialBegan | TrialEvaluated) and not sys.stderr.isatty():
            self._detail(event)
        self._refresh()

    def _stopped(self, event: WorkerStopped) -> None:
        if event.error is None:
            if event.worker in self.nodes:
                self._say(f"worker {event.worker} ended on node {self.nodes[event.worker]}")
            return
        self._say(f"worker {event.worker}: {event.error}")
        if event.exit_code not in (0, 1):
            kind = MissingError if event.exit_code == 3 else PeftsearchError
            self.fatal = kind(event.error)

    def _detail(self, event: TrialBegan | TrialEvaluated) -> None:
        if isinstance(event, TrialBegan):
            self._say(f"#{event.number} begins: {event.description}")
        elif event.value.fraction < 1:
            self._say(
                f"#{event.number} at {event.value.fraction:.0%}: {self.info.metric.name} "
                f"{self.info.metric.written(event.value.metric)}, {event.decision}"
            )

    def _ended(self, result: TrialResult) -> None:
        self.results[result.number] = result
        on_front = any(p.number == result.number for p in front_of(self._record()))
        if result.state == "infeasible" and self.last_said_misfit:
            self.more_misfits += 1
        elif on_front or result.state == "failed" or not sys.stderr.isatty():
            self._say(self._line(result, on_front))
            self.last_said_misfit = result.state == "infeasible"

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
            f"{what}: {self.info.metric.name} {self.info.metric.written(result.metric)} "
            f"at {result.tuned_pct:.3g} %"
            f" tuned{stopped}, {result.wall_s:.0f} s"
        )

    def _refresh(self) -> None:
        counts = dict.fromkeys(("full", "stopped", "failed"), 0)
        for result in self.results.values():
            if result.state in counts:
                counts[result.state] += 1
        volume = hypervolume_of(self._record())
        self.bar.update(
            self.task,
            description=(
                f"{counts['full']} full, {counts['stopped']} stopped, {counts['failed']} failed, "
                f"hypervolume {volume:.3f}"
            ),
            completed=self._done(sum(counts.values())),
            left=self._left(),
        )

    def _done(self, evaluated: int) -> float:
        shares = [0.0]
        if self.limits.trials:
            shares.append(evaluated / self.limits.trials)
        if self.limits.seconds:
            shares.append((time.monotonic() - self.began) / self.limits.seconds)
        return min(1.0, max(shares))

    def _left(self) -> str:
        if self.ready == 0:
            return "loading model and data"
        if self.limits.seconds is None:
            return f"{time.monotonic() - self.began:.0f} s"
        left = max(0.0, self.limits.seconds - (time.monotonic() - self.began))
        return f"{left // 60:.0f}:{left % 60:02.0f} left"

    def _record(self) -> StudyRecord:
        ordered = tuple(self.results[number] for number in sorted(self.results))
        return StudyRecord(info=self.info, results=ordered)

    def _say(self, line: str) -> None:
        self._say_misfits()
        self.console.print(shortened(clean(line)))

    def _say_misfits(self) -> None:
        if self.more_misfits:
            self.console.print(f"  {self.more_misfits} more like it")
        self.more_misfits, self.last_said_misfit = 0, False
