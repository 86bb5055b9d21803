"""The random policy: valid and different configurations, and none is stopped."""

from __future__ import annotations

from pathlib import Path
from random import Random

from scipy import stats

from peftsearch.policy.decisions import Begin
from peftsearch.policy.history import History
from peftsearch.policy.policy import PolicyContext
from peftsearch.policy.random import RandomPolicy, RandomSuggestions
from peftsearch.space.encode import encode
from peftsearch.workers.events import Event, TrialEnded
from peftsearch.workers.limits import Limits, WorkerSettings
from support.standin import create, open_study
from support.standin_worker import search_without_training

NONE = History(trials=(), rungs=(0.5, 1.0))


def test_a_random_search_trains_different_configurations_of_the_space_to_the_end(
    tmp_path: Path, tiny_bert: Path
) -> None:
    folder, heard = create(tiny_bert, tmp_path), list[Event]()
    worker = search_without_training(
        folder, Limits(24), heard.append, WorkerSettings(policy="random")
    )
    results = [e.result for e in heard if isinstance(e, TrialEnded)]
    trained = [r for r in results if r.state not in ("infeasible", "duplicate")]
    assert [r.state for r in trained] == ["full"] * 24
    assert {r.origin for r in trained} == {"sampled"}
    assert len({r.configuration_hash for r in trained}) == 24
    study = worker.study
    for one in open_study(folder).history_builder.build(study._trials()).trials:
        assert one.state == "infeasible" or one.parameters
    for result in trained:
        configuration = study._assignment(study.table.get(result.number), False).configuration
        encode(study.space.on(study.shapes), configuration)  # or NotExpressible
        assert configuration.tuned_pct(study.shapes) <= (result.budget_pct or 100)


def test_every_seed_and_worker_has_a_stream_of_its_own(tmp_path: Path, tiny_bert: Path) -> None:
    study = open_study(create(tiny_bert, tmp_path))

    def drawn(seed: int, worker: int) -> list[float]:
        policy = RandomPolicy(PolicyContext(study.space, study.shapes, seed, worker))
        begin = policy.next(NONE)
        assert isinstance(begin, Begin)
        assert isinstance(begin.proposal, RandomSuggestions)
        return [begin.proposal.suggest_float("x", 0, 1) for _ in range(3)]

    assert drawn(0, 0) == drawn(0, 0)
    assert len({tuple(drawn(seed, worker)) for seed in range(3) for worker in range(3)}) == 9


def test_draws_are_uniform_in_the_stated_scale() -> None:
    suggestions = RandomSuggestions(Random(0))
    plain = [suggestions.suggest_float("x", 2, 6) for _ in range(500)]
    logs = [suggestions.suggest_float("x", 1e-4, 1e-1, log=True) for _ in range(500)]
    names = [suggestions.suggest_categorical("x", ["a", "b", "c"]) for _ in range(900)]
    assert stats.kstest(plain, stats.uniform(2, 4).cdf).pvalue > 0.01
    assert stats.kstest(logs, stats.loguniform(1e-4, 1e-1).cdf).pvalue > 0.01
    assert stats.chisquare([names.count(name) for name in "abc"]).pvalue > 0.01
