"""A search killed at many moments of real training, and what it leaves."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from peftsearch.space.file.document import Document
from peftsearch.space.space import Space
from peftsearch.study.create import NewStudy, create_study
from peftsearch.task.spec import TaskSpec
from peftsearch.workers.limits import Limits, WorkerSettings
from peftsearch.workers.worker import Worker
from support.killable import in_a_fork
from support.uninterrupted import uninterrupted, without_clock

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, epochs: 4, rungs: [0.2, 0.5, 1], rung_examples: 10}
places: {attn: {at: [query+value, heads]}, ffn: {at: [out]}}
choices:
  attn: {form: [none, linear, prefix], composition: [add, gated]}
  ffn: {form: [none, relu]}
train: {batch_size: 8, lr: {log: [1e-3, 1e-1]}}
seed_with: [head-only-mean, prefix]
"""
KILLS = 24
AT_LEAST = 6


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path) -> StudyFolder:
    request = NewStudy(
        name="s",
        space=Space(Document("space.yaml", SPACE)),
        space_name="space.yaml",
        model=str(tiny_bert),
        task=TaskSpec(train=str(tiny_sentiment_csv)),
    )
    return create_study(request, tmp_path, "")


def begin(folder: StudyFolder, trials: int) -> int:
    """A process that resumes the study; a fork, since importing torch takes seconds."""

    def body() -> int:
        folder.search_lock().acquire(timeout_s=5.0)
        worker = Worker(
            *(str(folder.root), 0, Limits(trials), time.monotonic, WorkerSettings()),
            emit=lambda _: None,
            stop=lambda: False,
        )
        worker.study.recover()
        worker.run()
        return 0

    return in_a_fork(body)


def kill(process: int, seconds: float, folder: StudyFolder) -> None:
    """Kill it so long after its first word in the journal."""
    before = folder.journal_path.stat().st_size
    deadline = time.monotonic() + 300
    while folder.journal_path.stat().st_size == before and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def by_number(folder: StudyFolder) -> dict[int, TrialResult]:
    return {result.number: result for result in folder.read().results}


@pytest.mark.slow
def test_killed_at_many_moments_nothing_is_lost_or_trained_twice_and_curves_are_the_same(
    folder: StudyFolder, tmp_path: Path
) -> None:
    source = random.Random(0)
    kept: dict[int, TrialResult] = {}
    for _ in range(KILLS):
        kill(begin(folder, 10_000), source.uniform(0, 0.4), folder)
        now = by_number(folder)
        assert all(now.get(number) == result for number, result in kept.items())
        kept = now
    _, status = os.waitpid(begin(folder, AT_LEAST), 0)
    assert os.waitstatus_to_exitcode(status) == 0
    final = by_number(folder)
    assert all(final[number] == result for number, result in kept.items())
    assert folder.read().running == 0
    trained = [r for r in final.values() if r.state in ("full", "stopped")]
    assert len({r.configuration_hash for r in trained}) == len(trained)
    assert len(trained) + sum(r.state == "failed" for r in final.values()) >= AT_LEAST
    for result, curve in uninterrupted(folder, trained, tmp_path / "again"):
        assert without_clock(curve) == without_clock(result.curve), result.number
