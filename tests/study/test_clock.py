"""A clock that someone sets while a search runs, by hours and to either side."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from peftsearch.records.folder import StudyFolder
from peftsearch.workers import worker as working
from peftsearch.workers.limits import Limits, WorkerSettings
from peftsearch.workers.worker import Worker
from support import standin
from support.hostile import here
from support.hostile.world import SPACE

HOUR_S = 3600.0


def jumping(by_s: float) -> Callable[[], float]:
    """The time of day, which jumps anew each time that someone looks."""
    real, looks = time.time, iter(range(10**9))
    return lambda: real() + by_s * next(looks)


@pytest.mark.slow
@pytest.mark.parametrize("by_s", [10 * HOUR_S, -10 * HOUR_S])
def test_a_clock_that_jumps_neither_ends_a_search_nor_spoils_its_times(
    by_s: float,
    tmp_path: Path,
    tiny_bert: Path,
    tiny_sentiment_csv: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.setattr(time, "time", jumping(by_s))
    words = ["search", "space.yaml", "--model", str(tiny_bert), "--study", "s", "--minutes", "30"]
    words += ["--train", str(tiny_sentiment_csv), "--trials", "3"]
    began = time.monotonic()
    assert here.run(words, lambda: False) == 0
    spent_s = time.monotonic() - began
    results = StudyFolder.open("s").read().results
    assert sum(result.state == "full" for result in results) >= 1
    assert len(results) >= 3
    for result in results:
        seconds = [value.wall_s for value in result.curve]
        assert seconds == sorted(seconds)
        assert all(0 <= second <= spent_s for second in (*seconds, result.wall_s))


@pytest.mark.parametrize("by_s", [10 * HOUR_S, -10 * HOUR_S])
def test_the_end_of_a_search_is_told_by_a_clock_that_nobody_sets(
    by_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "time", jumping(by_s))
    worker = object.__new__(Worker)
    worker.limits, worker.began, worker.first_rungs_s = Limits(seconds=60.0), 1000.0, []
    worker.asked_to_stop, worker.parent = (lambda: False), working.os.getppid()
    assert not worker._finished()
    now = 1059.0
    assert not worker._finished()
    now = 1061.0
    assert worker._finished()
    assert not worker._interrupted()
    now = 1067.0
    assert worker._interrupted()


def test_a_checkpoint_written_while_the_clock_was_set_back_still_counts_as_progress(
    tmp_path: Path, tiny_bert: Path
) -> None:
    folder = standin.create(tiny_bert, tmp_path)
    study = standin.open_study(folder)
    assignment = standin.take(study)
    checkpoint = folder.trial(assignment.number).checkpoint_path
    for turn in range(6):  # far more often than a trial may be cut off without progress
        checkpoint.write_bytes(b"")
        stamp = int((time.time() - turn * HOUR_S) * 1e9)
        working.os.utime(checkpoint, ns=(stamp, stamp))
        assert study.recover() == []
        assert standin.take(study).number == assignment.number


def test_a_search_begins_once_model_and_data_are_loaded(
    tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less time than loading takes: it would have ended before its first trial."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    prepare = Worker._prepare

    def slow(self: Worker, settings: WorkerSettings) -> None:
        time.sleep(1.0)
        prepare(self, settings)

    monkeypatch.setattr(Worker, "_prepare", slow)
    words = ["search", "space.yaml", "--model", str(tiny_bert), "--study", "s"]
    words += ["--train", str(tiny_sentiment_csv), "--trials", "1", "--minutes", str(0.9 / 60)]
    assert here.run(words, lambda: False) in (0, 1)
    record = StudyFolder.open("s").read()
    assert len(record.results) + record.running >= 1
