"""Stand-ins for training in workers on a Ray cluster; imported on its nodes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.records.folder import StudyFolder
from peftsearch.study.study import Assignment
from peftsearch.workers.cohort_scheduler import Ended
from peftsearch.workers.events import Event, TrialBegan
from peftsearch.workers.limits import Limits, WorkerSettings
from support.crowd import WaitingTrainer, WaitingWorker

Emit = Callable[[Event], None]
Stop = Callable[[], bool]
StartClock = Callable[[], float]

GO = "go"
HELD = 8
"""Trials from this number on begin once there is a file `GO` in the study's folder."""


class _Held(WaitingTrainer):
    def begin(self, assignment: Assignment) -> Ended:
        while assignment.number >= HELD and not (self.worker.folder.root / GO).exists():
            time.sleep(0.05)
        return super().begin(assignment)


def waits_at_rungs(
    root: str,
    worker: int,
    limits: Limits,
    start_clock: StartClock,
    settings: WorkerSettings,
    emit: Emit,
    stop: Stop,
) -> None:
    """Worker, study and storage are real. Says which GPUs it sees."""
    emit(TrialBegan(worker, -1, f"GPUs {os.environ.get('CUDA_VISIBLE_DEVICES')}"))
    WaitingWorker.shapes = load_shapes(StudyFolder.at(Path(root)).read_info().model)
    waits = WaitingWorker(root, worker, limits, start_clock, settings, emit, stop)
    waits.scheduler = _Held(waits, 0.1)  # type: ignore[assignment]
    waits.run()
