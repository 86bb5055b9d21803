"""The study: what it hands out, what it is told, what it makes of trials that were cut off."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from peftsearch.errors import UsageError
from peftsearch.policy.stopping import peers_of
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from peftsearch.study.study import MAX_CUT_OFFS, Assignment, Study
from support.killable import in_a_fork
from support.standin import (
    create,
    finish,
    metric_of,
    open_study,
    rung_value,
    take,
    train_for_nothing,
)

ONE_CONFIGURATION = """schema: 1
budgets: {tuned_pct: {log: [9, 9.01]}, epochs: 1}
places: {attn: {at: [query+value]}}
choices: {attn: {form: [linear]}}
train: {lr: 0.001}
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> StudyFolder:
    return create(tiny_bert, tmp_path)


@pytest.fixture
def study(folder: StudyFolder) -> Study:
    return open_study(folder)


def run(study: Study, trials: int) -> list[Assignment]:
    assignments = []
    for _ in range(trials):
        assignment = take(study)
        train_for_nothing(study, assignment, stop_early=assignment.number % 3 == 2)
        assignments.append(assignment)
    return assignments


@pytest.mark.slow
def test_no_configuration_is_given_out_twice(study: Study) -> None:
    hashes = [a.configuration.hash for a in run(study, 60)]
    assert len(set(hashes)) == len(hashes)


def test_methods_come_first_and_at_most_every_second_trial(study: Study) -> None:
    origins = [a.origin != "sampled" for a in run(study, 12)]
    for end in range(1, len(origins) + 1):
        assert sum(origins[:end]) <= (end + 1) / 2
    assert sum(origins) == len(study.policy.landmarks.others) == 4


def test_what_the_space_cannot_express_is_a_landmark_without_parameters(study: Study) -> None:
    run(study, 12)
    trials = {t.user_attrs.get("seed"): t for t in study._trials()}
    assert trials["head-only-mean"].params == {}
    assert trials["full"].params == {}
    assert trials["lora"].params["attn.form"] == "linear"
    assert trials["head-only-mean"].values[1] == 0.0
    assert trials["full"].values[1] == 100.0


def test_duplicates_are_told_the_first_result_and_not_trained(
    tmp_path: Path, tiny_bert: Path
) -> None:
    space = """schema: 1
budgets: {tuned_pct: {log: [9, 9.01]}, epochs: 1}
places: {attn: {at: [query+value]}}
choices: {attn: {form: [linear, relu]}}
train: {lr: 0.001}
"""
    study = open_study(create(tiny_bert, tmp_path / "s", space))
    results: list[TrialResult] = []
    for _ in range(30):
        asked = study.ask()
        if isinstance(asked, Assignment):
            train_for_nothing(study, asked)
        elif asked is not None:
            results.append(asked)
    assert {r.state for r in results} == {"duplicate"}
    for result in results:
        first = study.folder.trial(result.same_as or 0).read_result()
        assert first is not None
        assert (result.wall_s, result.eval_s, result.train_s) == (0, 0, None)
        assert (result.peak_rss_bytes, result.adapter_bytes) == (None, 4096)
        assert (result.metric, result.configuration_hash) == (
            first.metric,
            first.configuration_hash,
        )
    assert study.count_begun() == 30 - len(results)


def test_a_duplicate_of_a_running_trial_is_told_when_that_one_ends(
    tmp_path: Path, tiny_bert: Path
) -> None:
    study = open_study(create(tiny_bert, tmp_path / "s", ONE_CONFIGURATION))
    first = take(study)
    assert study.ask() is None
    told = study.tell(finish(first, study.shapes))
    assert [(r.number, r.state, r.same_as) for r in told] == [
        (0, "full", None),
        (1, "duplicate", 0),
    ]


def test_a_duplicate_of_a_trial_that_is_given_up_is_given_up_too(
    tmp_path: Path, tiny_bert: Path
) -> None:
    folder = create(tiny_bert, tmp_path / "s", ONE_CONFIGURATION)
    study, other = open_study(folder, worker=0), open_study(folder, worker=1)
    first = take(study)
    assert other.ask() is None
    for _ in range(MAX_CUT_OFFS):
        assert study.recover(worker=0) == []
        assert take(study).number == first.number
    ended = study.recover(worker=0)
    assert [(r.number, r.state, r.same_as) for r in ended] == [
        (0, "failed", None),
        (1, "duplicate", 0),
    ]
    assert [t.state for t in study._trials()] == [TrialState.FAIL, TrialState.FAIL]


@pytest.mark.slow
def test_optuna_sees_stopped_trials_as_complete_and_learns_from_them(study: Study) -> None:
    run(study, 40)
    trials = study.study.get_trials(deepcopy=False)
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    stopped = {t.number for t in trials if t.user_attrs.get("rung") == 0}
    below = optuna.samplers._tpe.sampler._split_trials(study.study, trials, 20)[0]
    assert stopped & {t.number for t in below}


def test_rung_values_of_others_are_peers(study: Study) -> None:
    first, second = run(study, 2)
    peers = peers_of(study._history(None), second.number, 0)
    assert [(p.number, p.metric, p.final) for p in peers] == [
        (first.number, metric_of(first), metric_of(first))
    ]


def test_a_trial_that_lost_its_size_in_a_damaged_journal_is_no_peer(folder: StudyFolder) -> None:
    run(open_study(folder), 2)
    text = folder.journal_path.read_text()
    assert text.count('{"tuned_pct":') == 2
    folder.journal_path.write_text(text.replace('{"tuned_pct":', '{"tuned_cpt":', 1))
    study = open_study(folder)
    assert len(study._trials()) == 2
    assert [peer.number for peer in peers_of(study._history(None), 7, 0)] == [1]


def test_a_study_whose_texts_have_no_length_is_refused(folder: StudyFolder) -> None:
    info = json.loads((folder.root / "study.json").read_text())
    (folder.root / "study.json").write_text(json.dumps(info | {"max_length": -3}))
    with pytest.raises(UsageError, match=r"study\.json.*max_length"):
        StudyFolder.at(str(folder.root)).read_info()


def test_a_trial_cut_off_with_a_configuration_is_handed_out_again_once_without_progress(
    folder: StudyFolder,
) -> None:
    cut = take(open_study(folder))
    for _ in range(MAX_CUT_OFFS):
        resumed = open_study(folder)
        assert resumed.recover() == []
        again = take(resumed)
        assert (again.number, again.configuration, again.resumed) == (
            cut.number,
            cut.configuration,
            True,
        )
    given_up = open_study(folder).recover()
    assert [(r.number, r.state, r.cause) for r in given_up] == [(cut.number, "failed", "cut_off")]


def test_what_has_ended_keeps_no_checkpoint(folder: StudyFolder) -> None:
    told, cut = take(study := open_study(folder)), take(open_study(folder, worker=1))
    paths = [folder.trial(trial.number).checkpoint_path for trial in (told, cut)]
    for path in paths:
        path.write_bytes(b"1")
    folder.trial(told.number).write_result(finish(told, study.shapes))  # killed before it is told
    for _ in range(MAX_CUT_OFFS):
        resumed = open_study(folder)
        assert resumed.recover() == []
        assert [path.exists() for path in paths] == [False, True]
        assert take(resumed).number == cut.number
    assert [r.number for r in open_study(folder).recover()] == [cut.number]
    assert [path.exists() for path in paths] == [False, False]


def test_a_new_checkpoint_counts_as_progress(folder: StudyFolder) -> None:
    cut = take(open_study(folder))
    for step in range(4):
        folder.trial(cut.number).checkpoint_path.write_bytes(bytes(step + 1))
        resumed = open_study(folder)
        assert resumed.recover() == []
        assert take(resumed).number == cut.number


def test_a_trial_cut_off_while_it_was_sampled_is_given_up_and_its_method_tried_again(
    folder: StudyFolder,
) -> None:
    study = open_study(folder)
    trial = study.study.ask()
    trial.set_user_attr("seed", "head-only-mean")
    given_up = open_study(folder).recover()
    assert [(r.number, r.cause) for r in given_up] == [(trial.number, "cut_off")]
    assert take(open_study(folder)).method == "head-only-mean"


def test_a_result_written_but_not_told_is_told(folder: StudyFolder) -> None:
    study = open_study(folder)
    assignment = take(study)
    folder.trial(assignment.number).write_result(finish(assignment, study.shapes))
    resumed = open_study(folder)
    assert resumed.recover() == []
    assert resumed._trials()[assignment.number].values[0] == metric_of(assignment)
    assert take(resumed).number == assignment.number + 1


def test_an_interrupted_trial_is_put_back_and_goes_on_first(folder: StudyFolder) -> None:
    study = open_study(folder)
    assignment = take(study)
    study.requeue(assignment.number)
    again = take(study)
    assert (again.number, again.resumed) == (assignment.number, True)


def test_a_failed_trial_is_failed_for_optuna_and_the_study_goes_on(study: Study) -> None:
    assignment = take(study)
    study.tell(finish(assignment, study.shapes, "failed", "nan"))
    assert study._trials()[assignment.number].state == TrialState.FAIL
    assert take(study).number == assignment.number + 1


def test_a_resumed_study_draws_anew(folder: StudyFolder) -> None:
    first = [a.configuration.hash for a in run(open_study(folder), 10)]
    second = [a.configuration.hash for a in run(open_study(folder), 10)]
    assert not set(first) & set(second)


def _ask_and_tell(root: str, worker: int, count: int) -> int:
    study = open_study(StudyFolder.at(root), worker)
    for _ in range(count):
        train_for_nothing(study, take(study))
    return 0


@pytest.mark.slow
def test_processes_that_ask_at_once_get_different_trials(folder: StudyFolder) -> None:
    def body(worker: int) -> Callable[[], int]:
        return lambda: _ask_and_tell(str(folder.root), worker, 12)

    processes = [in_a_fork(body(worker)) for worker in range(3)]
    assert [os.waitpid(process, 0)[1] for process in processes] == [0, 0, 0]
    results = [r for r in folder.read().results if r.state == "full"]
    assert len(results) == 36
    assert len({r.configuration_hash for r in results}) == 36
    assert sum(r.method is not None for r in results) == 4


@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_journal_that_lost_finished_trials_is_refused_and_they_are_not_overwritten(
    folder: StudyFolder, study: Study, kept: float
) -> None:
    run(study, 4)
    results = folder.read().results
    lines = folder.journal_path.read_bytes().splitlines(keepends=True)
    folder.journal_path.write_bytes(b"".join(lines[: int(kept * len(lines))]))
    with pytest.raises(UsageError, match=r"journal.log: it has \d+ trials, but trial \d+ is"):
        open_study(folder)
    assert folder.read().results == results


@pytest.mark.slow
def test_whatever_line_a_journal_has_lost_finished_trials_stay_as_they_are(
    tiny_bert: Path, tmp_path: Path
) -> None:
    """With the line that began a trial, all after it have the numbers of others."""
    made = create(tiny_bert, tmp_path)
    begun = open_study(made)
    run(begun, 2)
    seed = next(seed for seed in begun.policy.landmarks.others if seed.params is not None)
    labels = {"seed": seed.label, "method": seed.method}
    begun.study.enqueue_trial(seed.params, labels)  # as earlier versions did
    run(begun, 3)
    take(begun)  # one that has not ended: the number that is missing is not one of a finished trial
    for number, result in enumerate(made.read().results):  # it is not the same if trained again
        text = result.model_copy(update={"wall_s": 100.0 + number}).model_dump_json()
        made.trial(number).result_path.write_text(text)
    results = made.read().results
    lines = made.journal_path.read_bytes().splitlines(keepends=True)
    refused = []
    for lost in range(1, len(lines)):
        folder = StudyFolder.at(shutil.copytree(made.root, tmp_path / f"without-{lost}"))
        folder.journal_path.write_bytes(b"".join(lines[:lost] + lines[lost + 1 :]))
        try:
            again = open_study(folder)
            again.recover()
            run(again, 2)
        except UsageError as error:
            refused.append(str(error))
        assert folder.read().results[:5] == results
    assert 0 < len(refused) < len(lines) / 2
    assert all("restore it from a copy" in sentence for sentence in refused)


def test_a_journal_of_other_directions_is_refused(folder: StudyFolder, study: Study) -> None:
    run(study, 3)
    text = folder.journal_path.read_text()
    assert '"directions":[2,1]' in text
    folder.journal_path.write_text(text.replace('"directions":[2,1]', '"directions":[2]', 1))
    with pytest.raises(
        UsageError,
        match=r"journal.log: damaged: the objectives of study '.*' are to maximize there",
    ):
        open_study(folder)


class CutOff:
    """A study's lock behind which the connection is lost once, after what was done is written."""

    def __init__(self, lock: AbstractContextManager[object], after: int) -> None:
        self.lock, self.left = lock, after

    def __enter__(self) -> None:
        self.lock.__enter__()

    def __exit__(self, *error: object) -> None:
        self.lock.__exit__(None, None, None)
        self.left -= 1
        if self.left == 0:
            raise OperationalError("COMMIT", {}, Exception("connection lost"))


@pytest.mark.parametrize("after", [1, 2])
def test_what_an_outage_cuts_off_after_it_is_given_out_is_given_out_again(
    after: int, tiny_bert: Path, tmp_path: Path
) -> None:
    study = open_study(create(tiny_bert, tmp_path))
    study.lock = CutOff(study.lock, after)
    trial = take(study)
    train_for_nothing(study, trial)
    states = [t.state.name for t in study._trials()]
    assert states.count("COMPLETE") == 1
    assert not study.has_unfinished_trials(), states


def test_a_rung_of_a_trial_that_has_ended_elsewhere_is_not_recorded(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after its worker has read that it has it, and before it writes."""
    study = open_study(create(tiny_bert, tmp_path))
    trial = take(study)
    inner = Study._owns

    def late(self: Study, number: int) -> bool:
        held = inner(self, number)
        monkeypatch.setattr(Study, "_owns", inner)
        train_for_nothing(open_study(study.folder), trial)
        return held

    monkeypatch.setattr(Study, "_owns", late)
    assert not study.record_rung(trial.number, rung_value(0, 0.1))
    ended = study.study.get_trials(deepcopy=False)[trial.number]
    assert ended.state == TrialState.COMPLETE
    assert ended.user_attrs["rung:0"] != 0.1
