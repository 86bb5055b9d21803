"""The lines that a search writes while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.cli.progress import Progress
from peftsearch.search.events import Event, TrialBegan, TrialEnded
from peftsearch.search.folder import StudyFolder
from peftsearch.search.limits import Limits
from peftsearch.search.records import TrialResult
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
    with Progress(folder, Limits(9), 1) as progress:
        for event in events:
            progress.hear(event)
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
