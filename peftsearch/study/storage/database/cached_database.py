"""Optuna's cache of a database with fewer statements: each costs a round trip."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
)
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState

from peftsearch.study.storage.database import postgres_writes
from peftsearch.study.storage.database.plain_reads import PlainDatabase

__all__ = ["CachedDatabase"]

_Row = tuple[str, float, BaseDistribution]
"""A parameter's name, Optuna's internal value and distribution."""
_Parameter = tuple[int, str, float, BaseDistribution]
"""Optuna's id of the trial, then a `_Row`."""


class CachedDatabase(_CachedStorage):
    """The storage that Optuna makes of a database, which also batches reads and writes.

    Without it TPE reads all trials again for each group of parameters that it samples, and every
    parameter and attribute is its own transaction.
    """

    def __init__(self, database: PlainDatabase) -> None:
        super().__init__(database)
        self.engine = database.engine
        self._database, self._is_batching = database, False
        self._new_trial_attributes: Mapping[str, Any] = {}
        self._parameters: list[_Parameter] = []
        self._attributes: list[tuple[int, str, Any]] = []

    @contextlib.contextmanager
    def batched(self, new_trial_attributes: Mapping[str, Any] = {}) -> Iterator[None]:
        """In this block no trial is read again, not even one begun in it, which has the attributes
        `new_trial_attributes`; parameters and Optuna's own attributes are written at its end. Not
        to be nested.
        """
        self._is_batching, self._new_trial_attributes = True, new_trial_attributes
        try:
            yield
            self._write()
        finally:
            self._is_batching, self._new_trial_attributes = False, {}
            self._parameters.clear()
            self._attributes.clear()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if template_trial is None and self._new_trial_attributes:
            template_trial = _running(self._new_trial_attributes)
        return super().create_new_trial(study_id, template_trial)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if not self._is_batching:
            super()._read_trials_from_remote_storage(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if self._is_batching and trial_id in self._trial_id_to_study_id_and_number:
            study_id, number = self._trial_id_to_study_id_and_number[trial_id]
            trial = self._studies[study_id].trials[number]
            if trial.state == TrialState.RUNNING:  # one that waited has just become one
                return copy.deepcopy(trial)
        return super().get_trial(trial_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if self._is_batching:
            self._attributes.append((trial_id, key, value))
        else:
            super().set_trial_system_attr(trial_id, key, value)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        parameter = (trial_id, param_name, param_value_internal, distribution)
        if self._is_batching:
            self._parameters.append(parameter)
        else:
            super().set_trial_param(*parameter)

    def _write(self) -> None:
        """Write the operations that `batched` has deferred."""
        database = self._database
        attributes: dict[int, dict[str, Any]] = {}
        for trial_id, key, value in self._attributes:
            attributes.setdefault(trial_id, {})[key] = value
        for trial_id, some in attributes.items():
            self._set_attributes(models.TrialSystemAttributeModel, trial_id, some)
        known, new = self._parameters_by_trial()
        if new:  # another worker may have written other distributions meanwhile: Optuna checks
            with _create_scoped_session(database.scoped_session) as session:
                for parameter in new:
                    database._set_trial_param_without_commit(session, *parameter)
            for trial_id, name, _, distribution in new:
                self._distributions(trial_id)[name] = distribution
        for trial_id, rows in known.items():
            with database.for_single_statements() as connection:
                if not postgres_writes.insert_parameters(connection, trial_id, rows):
                    database.check_trial_is_updatable(trial_id, TrialState.COMPLETE)

    def _distributions(self, trial_id: int) -> dict[str, BaseDistribution]:
        """Distributions known in a trial's study, by parameter name."""
        study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
        return self._studies[study_id].param_distribution

    def _parameters_by_trial(self) -> tuple[dict[int, list[_Row]], list[_Parameter]]:
        """Gathered parameters whose distribution the study knows, by trial; and the others."""
        known: dict[int, list[_Row]] = {}
        new = []
        for parameter in self._parameters:
            trial_id, name, value, distribution = parameter
            before = self._distributions(trial_id).get(name)
            if before is None or not self._database.is_postgres:
                new.append(parameter)
            else:
                check_distribution_compatibility(before, distribution)
                known.setdefault(trial_id, []).append((name, value, distribution))
        return known, new

    def set_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Write all of them or none, in one transaction; on PostgreSQL in one statement."""
        self._set_attributes(models.TrialUserAttributeModel, trial_id, attributes)

    def _set_attributes(self, kind: Any, trial_id: int, attributes: Mapping[str, Any]) -> None:
        database = self._database
        if database.is_postgres:
            with database.for_single_statements() as connection:
                written = postgres_writes.upsert_attributes(connection, kind, trial_id, attributes)
            if not written:
                database.check_trial_is_updatable(trial_id, TrialState.COMPLETE)
            return
        with _create_scoped_session(database.scoped_session) as session:
            for key, value in attributes.items():
                database._set_trial_attr_without_commit(session, kind, trial_id, key, value)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        database = self._database
        if not (state.is_finished() and database.is_postgres):
            return super().set_trial_state_values(trial_id, state, values)
        with database.for_single_statements() as connection:
            if not postgres_writes.end(connection, trial_id, state, values):
                database.check_trial_is_updatable(trial_id, TrialState.COMPLETE)
        return True


def _running(attributes: Mapping[str, Any]) -> FrozenTrial:
    return FrozenTrial(
        number=-1,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs=dict(attributes),
        system_attrs={},
        intermediate_values={},
        trial_id=-1,
    )
