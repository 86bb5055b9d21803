"""Landmarks: which methods are trained for comparison, in which order, and their share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.policy.history import History, RungScore, TrialRecord
from peftsearch.policy.landmarks import Landmarks, default_landmarks, landmarks_of
from peftsearch.policy.seeds import seeds_of
from peftsearch.workers.events import Event, TrialEnded
from peftsearch.workers.limits import Limits
from support.spaces import shipped
from support.standin import create
from support.standin_worker import search_without_training

SHAPES = load_shapes("config:bert-base")
RUNGS = (0.25, 1.0)
FULL = (RungScore(0, 0.6), RungScore(1, 0.7))
LORA = 5


def landmarks(choice: str, space: str = "unified") -> Landmarks:
    return landmarks_of(choice, shipped(space), SHAPES)


def searched(choice: str, count: int) -> list[TrialRecord]:
    """One worker's trials; every sampled one is stopped at its first rung."""
    due_of, trials = landmarks(choice), list[TrialRecord]()
    for number in range(count):
        due = due_of.due(History(tuple(trials), RUNGS))
        label = None if due is None else due.label
        rungs = FULL[:1] if due is None else FULL
        record = TrialRecord(
            number, "stopped", "sampled", label, str(number), 1.0, 0.6, rungs=rungs
        )
        trials.append(record if due is None else replace(record, state="full", origin="seed"))
    return trials


def test_none_is_never_due() -> None:
    assert {record.seed for record in searched("none", 10)} == {None}


@pytest.mark.slow
def test_all_are_the_spaces_methods_in_order_at_every_second_trial() -> None:
    labels = [seed.label for seed in seeds_of(shipped("unified"), SHAPES)]
    found = [record.seed for record in searched("all", 2 * len(labels) + 4)]
    assert found[: 2 * len(labels) : 2] == labels
    assert set(found[1::2] + found[2 * len(labels) :]) == {None}


def test_lora_comes_first_and_the_others_take_a_quarter_of_the_training() -> None:
    trials = searched("lora", 300)
    of_lora = [record.number for record in trials if record.seed and ", lr " in record.seed]
    assert of_lora == [0, 2, 4, 6, 8]
    others = {seed.label for seed in seeds_of(shipped("unified"), SHAPES)}
    assert {record.seed for record in trials} >= others
    theirs = total = 0.0
    for record in trials:
        length = RUNGS[len(record.rungs) - 1]
        if record.seed in others:
            assert theirs <= total / 4
        theirs, total = theirs + length * (record.seed in others), total + length
    sampled = [record.seed is None for record in trials]
    assert all(2 * sum(sampled[:n]) >= n - 1 for n in range(len(sampled)))


def test_others_begin_while_loras_rates_are_still_training() -> None:
    found = landmarks("lora")
    assert found.lora is not None
    trials = []
    for seed in found.lora.rates:
        for label in (seed.label, None):
            trials.append(TrialRecord(len(trials), "running", seed=label, hash=str(len(trials))))
    due = found.due(History(tuple(trials), RUNGS))
    assert due == found.others[0]


@pytest.mark.parametrize(
    ("space", "expected"),
    [("unified", "lora"), ("demo", "lora"), ("autopeft", "all"), ("sst2-roberta-base", "all")],
)
def test_lora_is_the_default_where_the_space_contains_it_and_is_no_recipe(
    space: str, expected: str
) -> None:
    assert default_landmarks(shipped(space), SHAPES) == expected


def test_a_search_trains_lora_at_three_sizes_with_its_best_rate_to_full_length(
    tmp_path: Path, tiny_bert: Path
) -> None:
    heard: list[Event] = []
    search_without_training(
        create(tiny_bert, tmp_path, SPACE, landmarks="lora"), Limits(30), heard.append
    )
    results = [e.result for e in heard if isinstance(e, TrialEnded)]
    lora = [r for r in results if r.method == "lora" and r.number < 2 * LORA]
    assert [(r.state, r.origin) for r in lora] == [("full", "seed")] * LORA
    rates = [r.configuration["training"]["lr"]["linear"] for r in lora if r.configuration]
    metrics = [r.metric or 0.0 for r in lora[:3]]
    assert rates[3:] == [rates[metrics.index(max(metrics))]] * 2
    assert lora[3].tuned_pct < lora[0].tuned_pct < lora[4].tuned_pct


SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, epochs: 1}
places: {attn: {at: [query+value, heads]}, ffn: {at: [out]}}
choices:
  attn: {form: [none, linear], composition: [add, {scaled: {s: [2, 4]}}]}
  ffn: {form: [none, relu]}
train: {lr: {log: [1e-4, 1e-2]}}
"""
