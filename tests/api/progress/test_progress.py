"""The lines that a search writes while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.api.progress import progress
from peftsearch.api.progress.progress import Progress
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from peftsearch.workers.events import (
    Event,
    StopRequested,
    TrialBegan,
    TrialEnded,
    TrialProgress,
    TrialRequeued,
    WorkerReady,
)
from peftsearch.workers.limits import Limits
from support import standin

DOES_NOT_FIT = "nothing of this structure fits the budget"


def misfit(number: int) -> TrialEnded:
    result = TrialResult(
        number=number,
        state="infeasible",
        origin="sampled",
        description=DOES_NOT_FIT,
        finished_at="2026-01-01T00:00:00+00:00",
    )
    return TrialEnded(0, result)


def lines_of(
    events: list[Event], folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    with Progress(folder, Limits(9), 1) as heard:
        for event in events:
            heard.handle(event)
    return capsys.readouterr().err.splitlines()


def test_samples_that_fit_no_budget_are_a_line_and_a_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = standin.create(Path("tiny"), tmp_path)
    events = [misfit(0), misfit(1), misfit(2), TrialBegan(0, 3, "lora"), misfit(4), misfit(5)]
    assert lines_of(events, folder, capsys)[1:] == [
        f"  #0 {DOES_NOT_FIT}: infeasible",
        "  2 more like it",
        "#3 begins: lora",
        f"  #4 {DOES_NOT_FIT}: infeasible",
        "  1 more like it",
    ]


def test_a_name_without_end_is_shortened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = standin.info(Path("tiny")).model_copy(update={"space": "é" * 5000})
    folder = StudyFolder.create(info, standin.SPACE, {}, tmp_path, "")
    (line,) = lines_of([], folder, capsys)
    assert line.startswith("study study: tiny on none, space éé")
    assert " … é" in line
    assert len(line) < 1500


class Clock:
    """In place of `time`, for one module."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def told(
    clock: Clock,
    timed: list[tuple[float, Event | None]],
    folder: StudyFolder,
    capsys: pytest.CaptureFixture[str],
    seconds: float | None = 100,
) -> list[str]:
    """Lines printed for events that come so many seconds after the command began."""
    with Progress(folder, Limits(seconds=seconds), 2) as heard:
        for second, event in timed:
            clock.now = 1000.0 + second
            heard.handle(event)
    return capsys.readouterr().err.splitlines()[1:]


def at(number: int, step: int) -> TrialProgress:
    return TrialProgress(number, number, step, 100, 0.5)


BEGUN: list[tuple[float, Event | None]] = [
    (40, WorkerReady(0)),
    (41, TrialBegan(0, 0, "a")),
    (41, TrialBegan(1, 1, "b")),
]
"""Forty seconds were spent loading."""


def test_the_limit_counts_from_the_first_worker_that_has_loaded_and_its_end_is_told(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [*BEGUN, (60, at(0, 0)), (60, at(1, 0)), (139, at(0, 95)), (139, at(1, 99))]
    folder = standin.create(Path("tiny"), tmp_path)
    lines = told(clock, [*events, (139.9, None), (140, None), (145, None)], folder, capsys)
    # Trial 0 takes 79 s for 95 steps: the other five take 4.2 s, of which one is over.
    assert lines == [
        "model and data are loaded: 1.67 minutes begin",
        "#0 begins: a",
        "#1 begins: b",
        "time is up: finishing 2 running trials, up to about 4 s",
    ]


def test_what_cannot_be_done_in_time_is_told_to_be_saved(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [*BEGUN[:2], (60, at(0, 0)), (139, at(0, 10)), (140, None)]
    folder = standin.create(Path("tiny"), tmp_path)
    lines = told(clock, [*events, (150, TrialRequeued(0, 0)), (151, None)], folder, capsys)
    assert lines[-2:] == [
        "time is up: 1 running trial may take up to 10 s more; those unfinished by then are saved, "
        "for --resume",
        "#0 is saved at step 10 of 100",
    ]


@pytest.mark.parametrize(
    ("events", "line"),
    [
        (BEGUN, "stopping: saving 2 running trials (Ctrl-C again ends at once: they then "),
        (
            BEGUN[:2],
            "stopping: saving 1 running trial (Ctrl-C again ends at once: it then ",
        ),
        ([], "stopping: no trial is under way"),
    ],
)
def test_ctrl_c_is_answered_with_what_is_saved(
    events: list[tuple[float, Event | None]],
    line: str,
    clock: Clock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = standin.create(Path("tiny"), tmp_path)
    stops: list[tuple[float, Event | None]] = [(50, StopRequested(1)), (51, StopRequested(2))]
    lines = told(clock, [*events, *stops], folder, capsys)
    assert lines[-2].startswith(line)
    assert lines[-1] == "ending at once: all that is finished or checkpointed is kept"
