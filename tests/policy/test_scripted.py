"""A policy drives a search through the real worker and study; trials are not trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftsearch.design.configuration import Configuration
from peftsearch.design.methods import METHODS
from peftsearch.errors import PolicyError, UsageError
from peftsearch.policy.decisions import Begin, Continue, Nothing, Pause, Stop
from peftsearch.records.folder import StudyFolder
from peftsearch.study.read_study import read_study
from peftsearch.study.study import Assignment
from peftsearch.workers.events import Event, TrialEnded, TrialEvaluated, TrialRequeued
from peftsearch.workers.limits import Limits
from support.crowd import parameters
from support.scripted import ScriptedPolicy, scripted
from support.standin import create, finish, metric_of, open_study, rung_value, take
from support.standin_worker import early_metric_of, search_without_training


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    scripted(monkeypatch, ScriptedPolicy())
    return create(tiny_bert, tmp_path, sampler="scripted")


def points(folder: StudyFolder, count: int) -> list[tuple[dict[str, Any], Configuration]]:
    """Parameters of different configurations of the space."""
    study = open_study(folder)
    return list(parameters(study.space, study.shapes, count).values())


def test_a_script_of_every_decision_is_followed(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, first), (other, second) = points(folder, 2)
    landmark = METHODS["full"].configuration()
    policy = ScriptedPolicy(
        answers=[Begin(one), Begin(other), Begin(landmark, "", "full", "full"), Continue(0)],
        verdicts={(0, 0): [Pause(0, "later")], (1, 0): [Stop(1, "hopeless")]},
    )
    scripted(monkeypatch, policy)
    heard: list[Event] = []
    limits = Limits(trials=100)  # the policy says Nothing before
    search_without_training(folder, limits, heard.append)

    ended = [e.result for e in heard if isinstance(e, TrialEnded)]
    assert [(r.number, r.state, r.origin) for r in ended] == [
        *((1, "stopped", "sampled"), (2, "full", "landmark"), (0, "full", "sampled"))
    ]
    configurations = [first.hash, second.hash, landmark.hash]
    assert [r.configuration_hash for r in folder.read().results] == configurations
    assert [e.number for e in heard if isinstance(e, TrialRequeued)] == [0]
    reasons = [(e.number, e.decision) for e in heard if isinstance(e, TrialEvaluated)]
    assert reasons[:2] == [(0, "later"), (1, "hopeless")]
    assert policy.judged == [(0, 0), (1, 0), (2, 0), (0, 0)]  # no verdict at full length
    assert folder.read().running == 0


def test_the_history_holds_what_became_of_each_trial(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, first), (other, second), (third, _) = points(folder, 3)
    policy = ScriptedPolicy(
        answers=[Begin(one), Begin(other), Begin(third), Begin(one)],
        verdicts={(1, 0): [Stop(1)], (2, 0): [Pause(2)]},
    )
    scripted(monkeypatch, policy)
    search_without_training(folder, Limits(), lambda _: None)

    assert policy.heard[0].trials == ()
    history = policy.heard[-1]
    assert [one.state for one in history.trials] == [
        "full",
        "stopped",
        "waiting",
        "duplicate",
    ]
    shapes = open_study(folder).shapes
    for record, point, configuration in zip(
        history.trials, (one, other), (first, second), strict=False
    ):
        assignment = Assignment(record.number, configuration, "sampled")
        assert (record.parameters, record.configuration) == (point, configuration)
        assert record.ranges.keys() == point.keys()
        assert record.tuned_pct == configuration.tuned_pct(shapes)
        assert record.metric == metric_of(assignment)
        score = record.rungs[0]
        assert score.metric == early_metric_of(assignment)
        assert (score.standard_error, score.loss, score.seconds) == (None, 0.5, 1.0)
    assert [len(record.rungs) for record in history.trials] == [2, 1, 1, 0]
    assert history.trials[3].hash == first.hash


def test_a_worker_that_waits_for_others_leaves_trials_that_stay_paused(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((one, _),) = points(folder, 1)
    scripted(monkeypatch, ScriptedPolicy([Begin(one)], verdicts={(0, 0): [Pause(0)]}))
    limits, heard = Limits(wait_for_others=True), list[Event]()
    search_without_training(folder, limits, heard.append)
    assert isinstance(heard[-1], TrialRequeued)
    assert read_study(folder).waiting == 1


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, "None for an idle worker; expected Begin, Continue or Nothing"),
        (Pause(0), r"Pause\(number=0.*expected Begin, Continue or Nothing"),
        (Continue(0), r"continue trial 0, which is not waiting \(waiting: none\)"),
        (Continue(7), "continue trial 7, which is not waiting"),
        (Begin("lora"), "begin 'lora'; expected a dictionary of parameters"),
        (Begin({"attn.form": "linear"}), "trial 1 cannot begin as proposed: parameter '.*' is mis"),
        (Begin({"attn.form": "lorra"}), "trial 1 cannot begin .* 'attn.form' = lorra is out of"),
    ],
)
def test_an_answer_that_cannot_be_followed_is_refused(
    answer: Any, sentence: str, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((one, _),) = points(folder, 1)
    scripted(monkeypatch, ScriptedPolicy(answers=[Begin(one), answer]))
    study = open_study(folder)
    assert take(study).number == 0  # trains, so that it does not wait
    with pytest.raises(PolicyError, match=sentence):
        study.ask()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            Nothing(),
            r"Nothing\(.*for trial 0, which reached a rung; expected Continue, Pause or Stop",
        ),
        (Stop(5), "about trial 5, but was asked about trial 0"),
    ],
)
def test_a_verdict_that_is_none_is_refused(
    said: Any, sentence: str, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((one, _),) = points(folder, 1)
    scripted(monkeypatch, ScriptedPolicy(answers=[Begin(one)], verdicts={(0, 0): [said]}))
    study = open_study(folder)
    trial = take(study)
    value = rung_value(0, 0.7)
    study.record_rung(0, value)
    with pytest.raises(PolicyError, match=sentence):
        study.after_rung(trial, value)


def test_suggestions_out_of_range_are_refused(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Beyond:
        def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
            return "linear" if name == "attn.form" else choices[0]

        def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
            return 2 * high

    scripted(monkeypatch, ScriptedPolicy(answers=[Begin(Beyond())]))
    with pytest.raises(PolicyError, match=r"'tuned_pct' = 40.0 is not in FloatDistribution"):
        open_study(folder).ask()


def test_nothing_begins_beyond_the_limit_whatever_the_policy_says(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, _), (other, _) = points(folder, 2)
    scripted(monkeypatch, ScriptedPolicy(answers=[Begin(one), Begin(other)]))
    study = open_study(folder)
    study.tell(finish(take(study), study.shapes))
    asked = study.ask(max_trials=1)
    assert isinstance(asked, Nothing)
    assert asked.reason == "the limit on configurations is reached"
    assert len(study.study.trials) == 1


def test_what_someone_enqueued_begins_before_what_a_policy_proposes(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, _), (other, enqueued) = points(folder, 2)
    policy = scripted(monkeypatch, ScriptedPolicy(answers=[Begin(one, "", "label", "lora")]))
    study = open_study(folder)
    study.study.enqueue_trial(other)
    trial = take(study)
    assert (trial.configuration, trial.origin, trial.method) == (enqueued, "sampled", None)
    assert policy.heard[0].has_queued


def test_an_unknown_sampler_is_refused_with_the_nearest_name(
    tmp_path: Path, tiny_bert: Path
) -> None:
    with pytest.raises(UsageError, match=r"sampler 'tpee' unknown; did you mean 'tpe'\?"):
        open_study(create(tiny_bert, tmp_path, sampler="tpee"))
