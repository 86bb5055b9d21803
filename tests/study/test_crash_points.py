"""Killed before any single write, a study loses nothing finished and trains nothing twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from peftsearch.records import trial_folder
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from peftsearch.study.storage.journal import JournalFile
from peftsearch.study.study import Assignment, Study
from support.standin import create, open_study, train_for_nothing

# Five configurations in all, and budgets that nothing fits: duplicates and infeasible trials too.
SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.05, 2]}, epochs: 1}
places: {attn: {at: [query+value]}}
choices: {attn: {form: [linear], composition: {scaled: {s: 2}}}}
train: {lr: 0.001}
seed_with: [head-only-mean, {method: lora, tuned_pct: 1.9}]
"""
ENOUGH = 4


def search(folder: StudyFolder) -> Study:
    """What a search does: recover, then ask and tell until enough was tried."""
    study = open_study(folder)
    study.recover()
    while study.count_begun() < ENOUGH or study.has_requeued():
        asked = study.ask()
        if isinstance(asked, Assignment):
            train_for_nothing(study, asked, stop_early=asked.number == 3)
    return study


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill, unlike a power cut, loses nothing that was written."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def snapshots_before_writes(folder: StudyFolder, to: Path) -> list[Path]:
    """The study's folder as a kill before each write of a whole search would leave it."""
    found: list[Path] = []

    def before(write: Callable[..., Any]) -> Callable[..., Any]:
        def snapshot_then_write(*arguments: Any) -> Any:
            found.append(to / str(len(found)))
            shutil.copytree(folder.root, found[-1])
            return write(*arguments)

        return snapshot_then_write

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (JournalFile, "append_logs"),
            (trial_folder, "write_atomic"),
            (trial_folder, "append_line"),
        ):
            patch.setattr(owner, name, before(getattr(owner, name)))
        search(folder)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("no_sync")
def test_killed_before_any_write_a_search_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, tiny_bert: Path
) -> None:
    whole = create(tiny_bert, tmp_path / "whole", SPACE)
    snapshots = snapshots_before_writes(whole, tmp_path)
    assert {"full", "stopped", "duplicate", "infeasible"} <= {r.state for r in whole.read().results}
    for snapshot in snapshots:
        folder = StudyFolder.at(snapshot)
        kept = folder.read().results
        study = search(folder)
        problems = list(problems_of(study, kept))
        assert not problems, (snapshot.name, problems)
    assert len(snapshots) > 60


def problems_of(study: Study, kept: tuple[TrialResult, ...]) -> Iterator[str]:
    results = {r.number: r for r in study.folder.read().results}
    trials = study.study.get_trials(deepcopy=False)
    if any(results.get(result.number) != result for result in kept):
        yield "a finished trial was lost or changed"
    trained = [r for r in results.values() if r.state in ("full", "stopped")]
    if len(trained) < ENOUGH:
        yield f"only {len(trained)} trained"
    if len({r.configuration_hash for r in trained}) < len(trained):
        yield "a configuration was trained twice"
    if sorted(str(r.method) for r in trained if r.method) != ["head-only-mean", "lora"]:
        yield "a method was not trained once"
    if results.keys() != {t.number for t in trials} or any(
        not t.state.is_finished() for t in trials
    ):
        yield f"trials without an end: {[t.state.name for t in trials]}"
    for trial in trials:
        result = results[trial.number]
        values = None if result.metric is None else [result.metric, result.tuned_pct]
        if values is not None and (trial.state, trial.values) != (TrialState.COMPLETE, values):
            yield f"trial {trial.number} is {result.state}, but {trial.state.name} for Optuna"
        if result.state == "infeasible" and trial.state != TrialState.COMPLETE:
            yield f"infeasible trial {trial.number} teaches the sampler nothing"
