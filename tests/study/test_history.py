"""The history that policies read: states, directions, and details from files or a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.policy.history import TrialRecord
from peftsearch.records.folder import StudyFolder
from peftsearch.study.history import HistoryBuilder
from peftsearch.study.storage.attributes import CONFIGURATION, CURVE
from peftsearch.study.study import Study
from support.standin import create, finish, metric_of, open_study, rung_value, take


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> StudyFolder:
    return create(tiny_bert, tmp_path)


@pytest.fixture
def study(folder: StudyFolder) -> Study:
    return open_study(folder)


def records(study: Study) -> tuple[TrialRecord, ...]:
    return study.history_builder.build(study._trials()).trials


def test_each_trial_has_the_state_that_became_of_it(study: Study) -> None:
    study.study.enqueue_trial({"attn.form": "none"})
    assert [record.state for record in records(study)] == ["queued"]
    study.study.ask()
    study.recover()  # begun without a configuration: given up, and enqueued again
    full, stopped, failed, back, trained = (take(study) for _ in range(5))
    study.tell(finish(full, study.shapes))
    study.tell(finish(stopped, study.shapes, "stopped"))
    study.tell(finish(failed, study.shapes, "failed", "diverged"))
    study.requeue(back.number)
    found = {record.number: record.state for record in records(study)}
    assert [found[t.number] for t in (full, stopped, failed, back, trained)] == [
        *("full", "stopped", "failed", "waiting", "running")
    ]
    assert found[0] == "failed"
    first = records(study)[full.number]
    assert (first.metric, first.hash) == (metric_of(full), full.configuration.hash)


def test_metrics_that_are_minimised_are_turned_and_written_as_they_were(
    folder: StudyFolder, study: Study
) -> None:
    trial = take(study)
    study.record_rung(trial.number, rung_value(0, 0.7))
    study.tell(finish(trial, study.shapes))
    scale = study.info.metric.model_copy(update={"maximise": False})
    losses = HistoryBuilder(study.info.model_copy(update={"metric": scale}), folder, details=False)
    history = losses.build(study._trials())
    assert history.trials[0].metric == -metric_of(trial)
    assert history.trials[0].rungs[0].metric == -0.7
    assert (history.worst, history.format_metric(-0.7)) == (-0.5, "0.7000")


def test_a_rung_whose_attribute_a_kill_has_lost_is_judged_by_its_value(study: Study) -> None:
    trial = take(study)
    tuned_pct = trial.configuration.tuned_pct(study.shapes)
    history = study.history_builder.at_rung(
        study._trials(), trial.number, tuned_pct, rung_value(0, 0.7)
    )
    assert records(study)[trial.number].rungs == ()
    assert [score.metric for score in history.trials[trial.number].rungs] == [0.7]


@pytest.mark.parametrize("where", ["files", "attributes"])
def test_details_are_those_that_were_recorded(
    where: str, folder: StudyFolder, study: Study
) -> None:
    trial = take(study)
    value = rung_value(0, 0.7).model_copy(update={"metric_se": 0.02, "loss": 0.3, "wall_s": 12.0})
    study.record_rung(trial.number, value)
    if where == "attributes":  # as workers write in a database
        study.table.set(trial.number, CURVE.at(0), value.model_dump(mode="json"))
        study.table.set(trial.number, CONFIGURATION, trial.configuration.to_json())
        folder = StudyFolder.at(create(Path(study.info.model), folder.root / "empty").root)
    history = HistoryBuilder(study.info, folder, details=True).build(study._trials())
    record = history.trials[trial.number]
    (score,) = record.rungs
    assert (score.metric, score.standard_error, score.loss, score.seconds) == (0.7, 0.02, 0.3, 12.0)
    assert record.configuration == trial.configuration


def test_a_trial_that_has_ended_is_converted_once(study: Study) -> None:
    ended = take(study)
    study.tell(finish(ended, study.shapes))
    take(study)
    first, second = records(study), records(study)
    assert first[0] is second[0]
    assert first[1] is not second[1]
