"""NSGA-II behind the interface of a policy proposes what Optuna's own study would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.policy.decisions import Begin
from peftsearch.policy.history import History, TrialRecord
from peftsearch.policy.nsga2 import POPULATION, Nsga2Policy, make_sampler
from peftsearch.policy.policy import PolicyContext
from peftsearch.records.folder import StudyFolder
from peftsearch.space.decode import decode
from peftsearch.space.file.values import Values
from peftsearch.space.random_samples import RandomSuggestions
from peftsearch.workers.events import Event, TrialEnded
from peftsearch.workers.limits import Limits
from support.optuna_studies import end
from support.spaces import shipped
from support.standin import SPACE, create, open_study, take
from support.standin_worker import search_without_training

UNSEEDED = SPACE.replace("seed_with", "# seed_with")

pytestmark = pytest.mark.internals


@pytest.mark.parametrize("at_once", [1, 3])
def test_proposals_are_those_of_optunas_own_study(
    at_once: int, tmp_path: Path, tiny_bert: Path
) -> None:
    """Over three generations, with trials that end out of order."""
    opened = open_study(create(tiny_bert, tmp_path, UNSEEDED))
    space, shapes = opened.space, opened.shapes
    policy = Nsga2Policy(PolicyContext(space, shapes, seed=5, worker=1))
    study = optuna.create_study(sampler=make_sampler(5, 1), directions=["maximize", "minimize"])
    running: list[optuna.Trial] = []
    for _ in range(3 * POPULATION):
        history = opened.history_builder.build(study.get_trials(deepcopy=False))
        trial = study.ask()
        theirs = decode(space.on(shapes), trial)
        begin = policy.next(history)
        assert isinstance(begin, Begin)
        assert decode(space.on(shapes), begin.proposal) == theirs  # type: ignore[arg-type]
        running.append(trial)
        if len(running) == at_once:
            end(study, running.pop(trial.number % at_once), opened.info.metric.worst)
    keys = {value for t in study.trials for value in t.system_attrs.values()}
    assert {0, 1, 2} <= keys  # generations


def searched(folder: StudyFolder, trials: int) -> list[str | None]:
    heard: list[Event] = []
    search_without_training(folder, Limits(trials), heard.append)
    return [e.result.configuration_hash for e in heard if isinstance(e, TrialEnded)]


@pytest.mark.slow
def test_one_worker_with_the_same_seed_finds_the_same(tmp_path: Path, tiny_bert: Path) -> None:
    one, other = (
        searched(create(tiny_bert, tmp_path / name, sampler="nsga2"), 2 * POPULATION + 10)
        for name in ("one", "other")
    )
    assert one == other


def test_every_worker_has_a_stream_of_its_own(tmp_path: Path, tiny_bert: Path) -> None:
    folder = create(tiny_bert, tmp_path, UNSEEDED, sampler="nsga2")
    drawn = [take(open_study(folder, worker)).configuration.hash for worker in range(3)]
    assert len(set(drawn)) == 3


def test_a_new_policy_learns_from_the_trials_of_others_and_not_from_landmarks(
    tmp_path: Path, tiny_bert: Path
) -> None:
    """All trials were begun by other policies, as after a resumption; among them are methods
    outside the space, which are complete and have no parameters.
    """
    ranges = {
        "attn.form": Values(("none", "linear", "prefix")),
        "ffn.form": Values(("none", "relu")),
    }
    trials = []
    for number in range(2 * POPULATION):
        form = ("none", "linear", "prefix")[number % 3]
        parameters = {} if number % 7 == 0 else {"attn.form": form, "ffn.form": "relu"}
        metric = 0.9 if form == "linear" else 0.6
        trials.append(
            TrialRecord(
                *(number, "full", "landmark" if not parameters else "sampled"),
                tuned_pct=1.0,
                metric=metric,
                parameters=parameters,
                ranges=ranges if parameters else {},
            )
        )
    history = History(tuple(trials), (0.5, 1.0))
    study = open_study(create(tiny_bert, tmp_path, UNSEEDED))
    policy = Nsga2Policy(PolicyContext(study.space, study.shapes, worker=1))
    proposed = []
    for _ in range(60):
        begin = policy.next(history)
        assert isinstance(begin, Begin)
        suggest = begin.proposal.suggest_categorical  # type: ignore[union-attr]
        proposed.append(suggest("attn.form", list(ranges["attn.form"].choices)))
    # Every parent is linear. Each of the two shared parameters is drawn anew with probability 1/2:
    # two thirds of the proposals are expected to be linear, a third if nothing were learned.
    assert 60 * 0.5 < proposed.count("linear") < 60


class Names:
    """Random suggestions, and the names of the parameters that were suggested."""

    def __init__(self, seed: str) -> None:
        self.random, self.names = RandomSuggestions(seed), set[str]()

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        self.names.add(name)
        return self.random.suggest_categorical(name, choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.names.add(name)
        return self.random.suggest_float(name, low, high, log=log)


def test_of_a_samples_14_parameters_4_are_in_every_sample() -> None:
    """The documents' statements about `unified` on BERT."""
    placed, samples = shipped("unified").on(load_shapes("config:bert-base")), list[set[str]]()
    for number in range(400):
        suggester = Names(f"0 {number}")
        decode(placed, suggester)
        samples.append(suggester.names)
    assert len(set.intersection(*samples)) == 4
    assert round(sum(map(len, samples)) / len(samples)) == 14
