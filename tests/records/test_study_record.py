"""A record's points, frontier and hypervolume: computed once, and of its own results alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from peftsearch.frontier import pareto as module
from peftsearch.records import records
from peftsearch.records.records import StudyRecord, TrialResult
from support import standin


def result(number: int, metric: float | None, tuned_pct: float, state: str = "full") -> TrialResult:
    return TrialResult(
        number=number,
        state=state,  # type: ignore[arg-type]
        origin="sampled",
        metric=metric,
        tuned_pct=tuned_pct,
    )


RESULTS = (
    result(0, 0.7, 1.0),
    result(1, 0.9, 4.0),
    result(2, 0.8, 6.0),
    result(3, 0.99, 0.6, "stopped"),
    result(4, None, 0.6, "failed"),
    result(5, 0.9, 2.0),
)


@pytest.fixture
def record() -> StudyRecord:
    return StudyRecord(info=standin.info(Path("model")), results=RESULTS)


def test_points_are_the_trials_of_full_length(record: StudyRecord) -> None:
    assert [point.number for point in record.points] == [0, 1, 2, 5]


def test_the_frontier_is_what_no_other_beats(record: StudyRecord) -> None:
    unbeaten = {
        a.number
        for a in record.points
        if not any(
            b.metric >= a.metric and b.tuned_pct <= a.tuned_pct and b != a for b in record.points
        )
    }
    assert [point.number for point in record.front] == sorted(unbeaten) == [0, 5]


def test_a_frontier_is_computed_once_and_never_for_other_results(
    record: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counting(*asked: object) -> list[module.Point]:
        calls.append(asked)
        return module.pareto(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(records, "pareto", counting)
    assert [record.front for _ in range(3)] == [record.front] * 3
    assert len(calls) == 1
    fewer = replace(record, results=RESULTS[:1])
    assert [point.number for point in fewer.front] == [0]
    assert fewer.hypervolume < record.hypervolume
