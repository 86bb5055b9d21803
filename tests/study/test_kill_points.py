"""The real command killed at random moments and resumed, and the check of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from peftsearch.records.examples import Examples, write_examples
from peftsearch.records.folder import StudyFolder
from support.kept import Witness, brute_force_front, problems_at_the_end
from support.kill_points import KilledSearches, tiny
from support.standin import create, metric_of, open_study, take, train_for_nothing


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="files are watched by inotify")
def test_killed_at_random_moments_a_search_loses_nothing_and_trains_nothing_twice(
    tmp_path: Path, tiny_bert: Path
) -> None:
    plan = replace(tiny(10, tmp_path, tiny_bert), trials=8, anew_every=1000)
    outcome = KilledSearches(plan).run()
    assert outcome.problems == []
    assert outcome.killed.total() == 10
    assert outcome.ends["cut off and continued"] >= 1
    assert outcome.compared >= 1


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> StudyFolder:
    """A study of three trials that ended."""
    made = create(tiny_bert, tmp_path / "studies")
    study = open_study(made)
    for _ in range(3):
        assignment = take(study)
        made.trial(assignment.number).adapter_path.write_bytes(save({"one": torch.zeros(1)}))
        kept = Examples("mse", {"score": np.array([metric_of(assignment)])})
        write_examples(made.trial(assignment.number).examples_path, kept)
        train_for_nothing(study, assignment)
        for rung in made.trial(assignment.number).read_result().curve:  # type: ignore[union-attr]
            made.trial(assignment.number).curve_path.unlink(missing_ok=True)
            made.trial(assignment.number).append_rung(rung)
    return made


def at_the_end(folder: StudyFolder, wanted: int = 3) -> list[str]:
    results = [result.model_dump() for result in folder.read().results]
    return list(problems_at_the_end(folder.root, wanted, brute_force_front(results)))


def test_a_study_that_was_never_disturbed_has_no_problem(folder: StudyFolder) -> None:
    witness = Witness(folder.root)
    assert list(witness.look()) == []
    assert list(witness.look()) == []
    assert at_the_end(folder) == []


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_lost_result_is_found(folder: StudyFolder, change: str) -> None:
    witness = Witness(folder.root)
    assert list(witness.look()) == []
    path = folder.trial(1).result_path
    path.unlink() if change == "gone" else path.write_text(path.read_text() + " ")
    assert f"LOST: the result of trial 00001 is {change}" in list(witness.look())


def test_half_a_file_and_a_shorter_journal_are_found(folder: StudyFolder) -> None:
    witness = Witness(folder.root)
    assert list(witness.look()) == []
    folder.trial(0).configuration_path.write_text("{")
    lines = folder.journal_path.read_bytes().splitlines(keepends=True)
    folder.journal_path.write_bytes(b"".join(lines[: len(lines) // 2]))
    found = "\n".join(witness.look())
    assert "trials/00000/configuration.json: half-written" in found
    assert "LOST: the journal had 3 trials, and has" in found


def test_what_is_not_accounted_for_at_the_end_is_found(folder: StudyFolder) -> None:
    first, second = (folder.trial(number) for number in (0, 1))
    twice = json.loads(second.result_path.read_text())
    twice["configuration_hash"] = json.loads(first.result_path.read_text())["configuration_hash"]
    second.result_path.write_text(json.dumps(twice | {"metric": 0.123}))
    first.adapter_path.unlink()
    first.examples_path.unlink()
    (first.root / ".a.0123456789ab.tmp").touch()
    second.checkpoint_path.touch()
    found = "\n".join(at_the_end(folder, wanted=4))
    for words in (
        f"DUPLICATE: {twice['configuration_hash']} was trained 2 times",
        "3 configurations were evaluated, not 4",
        "trial 1: full, but the journal has",
        "trial 0: LOST: full, but without its adapter",
        "trial 0: LOST: full, but without its examples",
        "trial 1: examples.npz is of another metric",
        "trial 1: ended, but its checkpoint is kept",
        "left behind: study/trials/00000/.a.0123456789ab.tmp",
    ):
        assert words in found


def test_a_frontier_with_a_point_too_few_is_found(folder: StudyFolder) -> None:
    assert "but [] was printed" in "\n".join(problems_at_the_end(folder.root, 3, []))


def test_the_front_is_what_no_other_trial_beats() -> None:
    rows = [("full", 0.5, 1.0), ("full", 0.6, 2.0), ("full", 0.6, 2.0), ("stopped", 0.9, 0.1)]
    rows += [("full", 0.55, 2.0), ("full", 0.6, 3.0)]
    results = [
        {"number": i, "state": state, "metric": metric, "tuned_pct": pct}
        for i, (state, metric, pct) in enumerate(rows)
    ]
    assert brute_force_front(results) == [0, 1]
