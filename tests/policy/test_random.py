"""Random search: its trials are random samples build the space, whichever worker draws them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from peftsearch.policy.policy import PolicyContext
from peftsearch.policy.random import RandomPolicy
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from peftsearch.space.decode import Sample, decode
from peftsearch.space.random_samples import RandomSuggestions
from peftsearch.workers.events import Event, TrialEnded, TrialEvaluated
from peftsearch.workers.limits import Limits
from support.standin import SPACE, create, open_study, take
from support.standin_worker import search_without_training

UNSEEDED = SPACE.replace("seed_with", "# seed_with")


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> StudyFolder:
    return create(tiny_bert, tmp_path, UNSEEDED, sampler="random", stopping=False, seed=7)


def samples(folder: StudyFolder, count: int) -> list[Sample]:
    """The space's random samples for the seeds build this study's trials."""
    study = open_study(folder)
    placed = study.space.on(study.shapes)
    return [decode(placed, RandomSuggestions(f"7 {number}")) for number in range(count)]


def hashes(found: list[Sample]) -> list[str | None]:
    return [s.configuration.hash if s.configuration else None for s in found]


def test_trials_are_exactly_the_spaces_random_samples_at_full_length_with_every_rung(
    folder: StudyFolder,
) -> None:
    heard: list[Event] = []
    search_without_training(folder, Limits(24), heard.append)
    ended = [e.result for e in heard if isinstance(e, TrialEnded)]
    results = sorted(ended, key=lambda result: result.number)
    drawn = samples(folder, len(results))
    assert [result.configuration_hash for result in results] == hashes(drawn)
    trained = [r for r in results if r.state not in ("infeasible", "duplicate")]
    assert [r.state for r in trained] == ["full"] * 24
    assert {r.origin for r in trained} == {"sampled"}
    rungs = [(e.number, e.value.rung) for e in heard if isinstance(e, TrialEvaluated)]
    assert rungs == [(r.number, rung) for r in trained for rung in (0, 1)]
    history = open_study(folder).history_builder.build(open_study(folder)._trials())
    states = {record.number: record.state for record in history.trials}
    recorded = {record.number: [s.rung for s in record.rungs] for record in history.trials}
    assert all(recorded[number] == [0, 1] for number in states if states[number] == "full")


def test_a_search_resumed_by_other_workers_draws_the_same_samples(folder: StudyFolder) -> None:
    expected = [one for one in hashes(samples(folder, 40)) if one is not None]
    drawn: list[str] = []
    for worker in (0, 1, 0, 5):  # each opens the study anew, as a resumed search does
        study = open_study(folder, worker)
        drawn += [take(study).configuration.hash for _ in range(3)]
    firsts = list(dict.fromkeys(expected))  # proposal was drawn before is a duplicate
    assert drawn == firsts[:12]


def test_another_seed_draws_others(tmp_path: Path, tiny_bert: Path) -> None:
    study = open_study(create(tiny_bert, tmp_path, UNSEEDED))
    setting = PolicyContext(study.space, study.shapes, study_seed=3)
    history = study.history_builder.build([])

    def value(setting: PolicyContext) -> float:
        return RandomPolicy(setting).suggestions(history).suggest_float("x", 0, 1)

    assert value(setting) == value(dataclasses.replace(setting, seed=9, worker=2))
    assert value(setting) != value(dataclasses.replace(setting, study_seed=4))


@pytest.mark.slow
def test_with_stopping_a_random_search_stops_what_cannot_reach_the_frontier(
    tmp_path: Path, tiny_bert: Path
) -> None:
    def searched(name: str, **changed: Any) -> list[TrialResult]:
        heard: list[Event] = []
        folder = create(tiny_bert, tmp_path / name, UNSEEDED, sampler="random", **changed)
        search_without_training(folder, Limits(40), heard.append)
        return [e.result for e in heard if isinstance(e, TrialEnded)]

    stopping, full = searched("stopping"), searched("full", stopping=False)
    assert "stopped" in {result.state for result in stopping}
    assert "stopped" not in {result.state for result in full}
    alike = [[r.configuration_hash for r in found] for found in (stopping, full)]
    assert alike[0] == alike[1]  # the two choices are independent


def test_draws_are_uniform_in_the_stated_scale() -> None:
    draws = [RandomSuggestions(f"0 {number}") for number in range(900)]
    plain = [one.suggest_float("x", 2, 6) for one in draws]
    logs = [one.suggest_float("x", 1e-4, 1e-1, log=True) for one in draws]
    names = [one.suggest_categorical("x", ["a", "b", "c"]) for one in draws]
    assert stats.kstest(plain, stats.uniform(2, 4).cdf).pvalue > 0.01
    assert stats.kstest(logs, stats.loguniform(1e-4, 1e-1).cdf).pvalue > 0.01
    assert stats.chisquare([names.count(name) for name in "abc"]).pvalue > 0.01
