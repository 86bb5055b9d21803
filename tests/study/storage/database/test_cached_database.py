"""What is written to a database in few statements is what Optuna writes in many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from peftsearch.policy.tpe import make_sampler
from peftsearch.study.storage.attributes import (
    CONFIGURATION,
    HASH,
    LAST_RUNG,
    METRIC_AT,
    TUNED_PCT,
    Attribute,
)
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.cached_database import CachedDatabase
from peftsearch.study.storage.database.connection import close_storage, open_database
from peftsearch.study.storage.trial_table import TrialTable
from support.postgres import PostgresServer

pytestmark = pytest.mark.internals

DIRECTIONS = ["maximize", "minimize"]


@pytest.fixture
def address(postgres: PostgresServer) -> StorageAddress:
    return StorageAddress.parse(postgres.new_database())


@pytest.fixture
def table(address: StorageAddress) -> Iterator[TrialTable]:
    storage = open_database(address)
    study = optuna.create_study(
        storage=storage, study_name="s", directions=DIRECTIONS, sampler=make_sampler(0)
    )
    yield TrialTable(study, storage)
    close_storage(storage)


def drawn(table: TrialTable) -> optuna.Trial:
    """A new trial with parameters of every kind."""
    table.all()
    with table.batched({"worker": "w"}):
        trial = table.study.ask()
    with table.batched():
        trial.suggest_categorical("form", ["none", "linear", 3, 2.5])
        trial.suggest_float("b", 0.1, 10.0, log=True)
        trial.suggest_int("width", 1, 64)
    return trial


def ended(table: TrialTable, number: int) -> list[FrozenTrial]:
    """All trials once so many were drawn and told, in every way that a trial ends."""
    for n in range(number):
        trial = drawn(table)
        with table.transaction():
            table.set(n, TUNED_PCT, float(n))
            table.set(n, METRIC_AT.at(0), 0.5)
            table.set(n, CONFIGURATION, {"deep": [{"ß→": None}, 1.5]})
        table.set(n, METRIC_AT.at(0), 0.25)
        with table.batched():
            if n % 4 == 3:
                table.study.tell(trial.number, state=TrialState.FAIL)
            else:
                table.study.tell(trial.number, (float("inf") if n % 4 == 1 else 0.7, -1.0 * n))
    drawn(table)
    return table.all()


def without_times(trials: list[FrozenTrial]) -> list[dict[str, Any]]:
    found = []
    for trial in trials:
        assert trial.datetime_start is not None
        assert (trial.datetime_complete is not None) == trial.state.is_finished()
        known = {key: value for key, value in vars(trial).items() if "datetime" not in key}
        found.append(known)
    return found


def test_few_statements_write_what_optunas_write(
    address: StorageAddress, table: TrialTable, postgres: PostgresServer
) -> None:
    """Enough of them for TPE to model, whose own attributes are written too."""
    few = ended(table, 24)
    plain = RDBStorage(StorageAddress.parse(postgres.new_database()).full)
    study = optuna.create_study(
        storage=plain, study_name="s", directions=DIRECTIONS, sampler=make_sampler(0)
    )
    many = ended(_Plain(study), 24)
    assert any(trial.system_attrs for trial in few)
    assert {trial.state for trial in few} == {
        *(TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING)
    }
    assert without_times(few) == without_times(many)
    close_storage(plain)
    reader = RDBStorage(address.full)
    read = optuna.load_study(study_name="s", storage=reader).get_trials()
    close_storage(reader)
    assert without_times(read) == without_times(few)


class _Plain(TrialTable):
    """Optuna's own storage, which begins a trial without attributes."""

    @contextlib.contextmanager
    def batched(
        self, new_trial_attributes: Mapping[str, Any] = MappingProxyType({})
    ) -> Iterator[None]:
        known = len(self.all())
        yield
        for trial in self.all()[known:]:
            for key, value in new_trial_attributes.items():
                self.set(trial.number, Attribute(key), value)


def late_attribute(table: TrialTable, trial: optuna.Trial) -> None:
    table.set(trial.number, LAST_RUNG, 1)


def late_parameter(table: TrialTable, trial: optuna.Trial) -> None:
    with table.batched():
        trial.suggest_int("width", 1, 64)


def late_end(table: TrialTable, trial: optuna.Trial) -> None:
    table.study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, (0.1, 0.2))


def late_failure(table: TrialTable, trial: optuna.Trial) -> None:
    table.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


@pytest.mark.parametrize("write", [late_attribute, late_parameter, late_end, late_failure])
def test_nothing_is_written_of_a_trial_that_others_ended(
    address: StorageAddress,
    table: TrialTable,
    write: Callable[[TrialTable, optuna.Trial], None],
) -> None:
    trial = drawn(table)
    with table.batched():
        late = table.study.ask()
    other = optuna.load_study(study_name="s", storage=open_database(address))
    other.tell(late.number, (0.9, 1.0))
    before = other.get_trials()
    with pytest.raises(UpdateFinishedTrialError):
        write(table, late)
    assert other.get_trials() == before
    assert other.get_trials()[trial.number].state == TrialState.RUNNING
    close_storage(other._storage)


def test_parameters_of_a_trial_that_was_given_out_are_read_once(
    table: TrialTable, address: StorageAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And shown ever after, and once it has ended."""
    first, second = drawn(table), drawn(table)
    table.set(first.number, HASH, "abc")
    reader = open_database(address)
    study = optuna.load_study(study_name="s", storage=reader)
    expected = [trial.params for trial in study.get_trials()]
    assert expected == [first.params, second.params]
    _forget_parameters(table.study._storage)
    assert [trial.params for trial in study.get_trials()] == [first.params, {}]
    table.study.tell(first.number, (0.1, 0.2))
    assert [trial.params for trial in study.get_trials()] == [first.params, {}]
    close_storage(reader)


def _forget_parameters(storage: CachedDatabase) -> None:
    from sqlalchemy import text

    with storage.engine.begin() as connection:
        connection.execute(text("DELETE FROM trial_params"))
