"""Trials read as rows are the trials that Optuna reads."""

from __future__ import annotations

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from peftsearch.study.storage.database import plain_reads
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.plain_reads import PlainDatabase
from support.postgres import PostgresServer

pytestmark = pytest.mark.internals


@pytest.fixture
def stored(postgres: PostgresServer) -> tuple[str, int]:
    """An address, and a study there with trials of every state, kind of parameter and attribute."""
    whole = StorageAddress.parse(postgres.new_database()).full
    storage = RDBStorage(whole)
    study = optuna.create_study(
        storage=storage,
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    for number in range(7):
        if number == 3:
            study.enqueue_trial({"b": 0.5}, user_attrs={"seed": "lora"})
        trial = study.ask()
        trial.suggest_categorical("form", ["none", "linear", 3, 2.5])
        trial.suggest_float("b", 0.1, 10.0, log=True)
        trial.suggest_int("width", 1, 64)
        trial.set_user_attr("configuration", {"deep": [{"ß→": None}, 1.5]})
        if number == 5:
            trial.set_constraint("budget", 0.25)
        if number < 4:
            study.tell(trial, (float("inf") if number == 1 else 0.7, -1.0 * number))
        elif number == 4:
            study.tell(trial, state=TrialState.FAIL)
    study.enqueue_trial({"width": 7})
    storage.engine.dispose()
    return whole, study._study_id


@pytest.mark.parametrize("at_once", [2, 10_000])
@pytest.mark.parametrize(
    ("ids", "after"), [((), -1), ((5, 6), 6), ((), 3), ((2, 8), 100), ((), 99)]
)
def test_rows_give_the_trials_that_optuna_reads(
    stored: tuple[str, int],
    ids: tuple[int, ...],
    after: int,
    at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plain_reads, "_AT_ONCE", at_once)
    whole, study_id = stored
    stock, plain = (
        read(kind(whole), study_id, set(ids), after) for kind in (RDBStorage, PlainDatabase)
    )
    if after == -1:
        assert {trial.state for trial in plain} == set(TrialState) - {TrialState.PRUNED}
    assert plain == stock
    assert [repr(trial) for trial in plain] == [repr(trial) for trial in stock]


def read(storage: RDBStorage, study_id: int, ids: set[int], after: int) -> list[FrozenTrial]:
    try:
        return storage._get_trials(study_id, None, ids, after)
    finally:
        storage.remove_session()
        storage.engine.dispose()
