"""Many workers on one study that train nothing: the real worker, study and storage, killed at will.

Results are a function of the configuration (`standin.py`), so what a calm run would find is known.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna

from peftsearch.design.configuration import Configuration
from peftsearch.design.shapes import BackboneShapes
from peftsearch.disk.atomic import write_atomic
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from peftsearch.space.decode import decode
from peftsearch.space.space import Space
from peftsearch.study.settings import space_of
from peftsearch.study.storage.database.heartbeat import HeartbeatTiming
from peftsearch.study.study import Assignment, Study
from peftsearch.workers.cohort_scheduler import Ended
from peftsearch.workers.limits import Limits, WorkerSettings
from peftsearch.workers.worker import Worker
from support.standin import finish, metric_of, rung_value

TIMING = HeartbeatTiming(interval_s=0.4, missed=5)


@dataclass
class WaitingTrainer:
    """In place of the cohort scheduler: a trial waits for a while at each rung. It is judged
    there, and goes on to its end whatever the judgement.
    """

    worker: Worker
    rung_s: float
    saves: bool = True
    """Checkpoints, for others to go on from."""
    has_room: bool = True
    in_flight: tuple[()] = ()
    is_idle: bool = True

    def begin(self, assignment: Assignment) -> Ended:
        study = self.worker.study
        path = self.worker.folder.trial(assignment.number).checkpoint_path
        known = assignment.resumed and path.exists()
        first = int(path.read_text()) + 1 if known else 0
        for rung in range(first, len(study.info.rungs)):
            time.sleep(self.rung_s)
            value = rung_value(rung, metric_of(assignment))
            study.record_rung(assignment.number, value)
            if self.saves:
                write_atomic(path, str(rung))
                study.publish_checkpoint(assignment.number)
            self.worker._judge(assignment, value)
        return assignment, finish(assignment, study.shapes)


class WaitingWorker(Worker):
    """The real worker with nothing to train."""

    rung_s = 0.1
    timing = TIMING
    saves = True
    shapes: BackboneShapes

    def _prepare(self, settings: WorkerSettings) -> None:
        space = space_of(self.folder, self.info)
        where = (self.folder, self.info, space, self.shapes)
        self.study = Study(*where, self.worker, self.name, self.timing)
        trainer = WaitingTrainer(self, self.rung_s, self.saves)
        self.scheduler = trainer  # type: ignore[assignment]


class TimedWorker(WaitingWorker):
    """One whose trials only wait. It notes the moments before its first ask and after its last tell
    in its folder.
    """

    timing = HeartbeatTiming()
    saves = False

    def _begin_one(self) -> Assignment | TrialResult | None:
        self.first_ask = getattr(self, "first_ask", time.monotonic())
        return super()._begin_one()

    def _end(self, assignment: Assignment, result: TrialResult | None) -> None:
        super()._end(assignment, result)
        path = self.folder.root / f"times-{self.name}.txt"
        path.write_text(f"{self.first_ask} {time.monotonic()}")


def search_s(folder: StudyFolder) -> float:
    """Seconds from the first ask to the last tell of all timed workers."""
    times = [list(map(float, p.read_text().split())) for p in folder.root.glob("times-*.txt")]
    return max(last for _, last in times) - min(first for first, _ in times)


Wanted = dict[str, tuple[dict[str, Any], Configuration]]
"""Configurations by their hashes, each with the parameters that sample it."""


def parameters(space: Space, shapes: BackboneShapes, count: int) -> Wanted:
    """`count` different configurations of a space."""
    source = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found: Wanted = {}
    while len(found) < count:
        trial = source.ask()
        sample = decode(space.on(shapes), trial)
        if sample.configuration is not None:
            found.setdefault(sample.configuration.hash, (trial.params, sample.configuration))
    return found


@dataclass
class Crowd:
    """Worker processes, each on the folder that `place(slot)` makes for it in the process itself.

    Forks: importing takes seconds. So the parent must not open the study's database before.
    """

    place: Callable[[int], StudyFolder]
    shapes: BackboneShapes
    trials: int
    rung_s: float
    worker: type[WaitingWorker] = WaitingWorker
    running: dict[int, int] = field(default_factory=dict)
    """Process id → slot."""

    def start(self, slot: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process = os.fork()
        if process:
            self.running[process] = slot
            return
        try:
            self._work(slot)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _work(self, slot: int) -> None:
        WaitingWorker.shapes, WaitingWorker.rung_s = self.shapes, self.rung_s
        limits = Limits(self.trials, wait_for_others=True)
        root = str(self.place(slot).root)
        self.worker(
            root, slot, limits, time.monotonic, WorkerSettings(), lambda _: None, lambda: False
        ).run()

    def kill_one(self, source: random.Random) -> None:
        """A random one, and another in its place."""
        process = source.choice(sorted(self.running))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        self.start(self.running.pop(process))

    def ended(self) -> Iterator[int]:
        """Exit codes of the workers that have ended by themselves since the last look."""
        for process in list(self.running):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                del self.running[process]
                yield os.waitstatus_to_exitcode(status)

    def run(
        self,
        workers: int,
        kill_every_s: float | None = None,
        also: Sequence[tuple[float, Callable[[], None]]] = (),
        limit_s: float = 300.0,
        kills: int = 10_000,
    ) -> int:
        """Until all have ended; how often one was killed. `also`: (seconds, what happens then)."""
        source, began, killed = random.Random(0), time.monotonic(), 0
        events = sorted(also, key=lambda event: event[0])
        for slot in range(workers):
            self.start(slot)
        next_kill = kill_every_s or float("inf")
        try:
            while self.running:
                time.sleep(0.05)
                now = time.monotonic() - began
                assert now < limit_s, "the workers do not come to an end"
                assert not [code for code in self.ended() if code], "a worker failed"
                if events and now > events[0][0]:
                    events.pop(0)[1]()
                if now > next_kill and self.running and killed < kills:
                    self.kill_one(source)
                    killed, next_kill = killed + 1, now + (kill_every_s or 0)
        finally:
            for process in self.running:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
        return killed


def metrics_of(wanted: Wanted, shapes: BackboneShapes) -> dict[str, tuple[float, float]]:
    """What a calm run finds: (metric, tuned %) of every configuration, by hash."""
    return {
        one: (metric_of(Assignment(0, c, "sampled")), c.tuned_pct(shapes))
        for one, (_, c) in wanted.items()
    }
