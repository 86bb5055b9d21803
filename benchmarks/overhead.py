"""Time of a search by part: training, evaluation, and the overhead beside them.

Usage: overhead.py [SECONDS]. A search of the demo's space on its model and data, one worker in
this process, one thread. Seconds of wall time from the worker's first ask to the report; inclusive
times of nested steps are subtracted, so that the parts sum to the whole. Needs the demo extra.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from peftsearch.records import derive
from peftsearch.records.trial_folder import TrialFolder
from peftsearch.report import html
from peftsearch.space.space import load_space
from peftsearch.study.create import NewStudy, create_study
from peftsearch.study.study import Study
from peftsearch.task.spec import TaskSpec
from peftsearch.training.loop import TrainingRun
from peftsearch.workers.limits import Limits, WorkerSettings
from peftsearch.workers.trial import PreparedTrial
from peftsearch.workers.worker import Worker

_STEPS: list[tuple[str, Any, str]] = [
    ("train", TrainingRun, "train_to"),
    ("evaluate", TrainingRun, "evaluate"),
    ("ask", Study, "ask"),
    ("attach", PreparedTrial, "_begin"),
    ("detach", TrainingRun, "__exit__"),
    ("record a rung", Study, "record_rung"),
    ("schedule: peers of a rung", Study, "peers"),
    ("checkpoint", TrainingRun, "save"),
    ("write the adapter", TrainingRun, "save_adapter"),
    ("curve of the trial", TrialFolder, "read_curve"),
    ("tell", Study, "tell"),
    ("frontier and tables", derive, "write_derived"),
    ("report", html, "write_report"),
]


class Clock:
    """Seconds of each step, without those of the steps inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._under_way: list[float] = []

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            self._under_way.append(0.0)
            try:
                return function(*args, **options)
            finally:
                took = time.perf_counter() - began
                self.seconds[name] += took - self._under_way.pop()
                self.calls[name] += 1
                if self._under_way:
                    self._under_way[-1] += took

        return timed


def main(seconds: float) -> None:
    clock = Clock()
    for name, owner, attribute in _STEPS:
        setattr(owner, attribute, clock.around(name, getattr(owner, attribute)))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEFTSEARCH_CACHE"] = str(Path(folder) / "cache")
        began = time.perf_counter()
        asked = NewStudy(
            name="overhead",
            space=load_space("demo"),
            space_name="demo",
            model="demo:minilm",
            task=TaskSpec(name="demo:tweets"),
            landmarks="all",
        )
        study = create_study(asked, Path(folder), "")
        worker = Worker(
            *(str(study.root), 0, Limits(seconds=seconds), time.monotonic, WorkerSettings()),
            emit=lambda event: None,
            stop=lambda: False,
        )
        start_s = time.perf_counter() - began
        clock.around("the rest", lambda: _search(worker, study))()
        trials = len(study.read().results)
    print(_table(clock, trials, start_s))


def _search(worker: Worker, study: Any) -> None:
    worker.run()
    record = study.read()
    derive.write_derived(study, record)
    html.write_report(record, study.report_path, study.read_environment(), study)


def _table(clock: Clock, trials: int, start_s: float) -> str:
    whole = sum(clock.seconds.values())
    lines = ["| | seconds | calls | ms a trial | % |", "|---|--:|--:|--:|--:|"]
    for name, took in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        share, each = 100 * took / whole, 1000 * took / trials
        lines.append(f"| {name} | {took:.2f} | {clock.calls[name]} | {each:.0f} | {share:.2f} |")
    other = whole - clock.seconds["train"] - clock.seconds["evaluate"]
    lines.append(
        f"| **all but training and evaluation** | {other:.2f} | | | {100 * other / whole:.2f} |"
    )
    head = f"{trials} trials in {whole:.0f} s, after {start_s:.0f} s of loading model and data.\n"
    return "\n".join([head, *lines])


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 240.0)
