"""Optuna's cache of a database, spared of statements: each is a way there and back."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

__all__ = ["CachedDatabase"]


class CachedDatabase(_CachedStorage):
    """What `get_storage` would make of a database, and ways to ask less of it.

    TPE reads all trials again for each group of parameters that it samples, and every parameter and
    attribute is a transaction of its own.
    """

    def __init__(self, database: RDBStorage) -> None:
        super().__init__(database)
        self.engine = database.engine
        self._database, self._is_content = database, False
        self._begin_with: Mapping[str, Any] = {}
        self._parameters: list[tuple[int, str, float, BaseDistribution]] = []

    @contextlib.contextmanager
    def as_read(self, begin_with: Mapping[str, Any] = {}) -> Iterator[None]:
        """In this block nothing is read anew of trials, not even of one that was begun in it, which
        has the attributes `begin_with`; parameters are written at its end, in one transaction. Not
        to be nested.
        """
        self._is_content, self._begin_with = True, begin_with
        try:
            yield
            self._write_parameters()
        finally:
            self._is_content, self._begin_with = False, {}
            self._parameters.clear()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if template_trial is None and self._begin_with:
            template_trial = _running(self._begin_with)
        return super().create_new_trial(study_id, template_trial)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if not self._is_content:
            super()._read_trials_from_remote_storage(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if self._is_content and trial_id in self._trial_id_to_study_id_and_number:
            study_id, number = self._trial_id_to_study_id_and_number[trial_id]
            trial = self._studies[study_id].trials[number]
            if trial.state == TrialState.RUNNING:  # one that waited has just become one
                return copy.deepcopy(trial)
        return super().get_trial(trial_id)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        parameter = (trial_id, param_name, param_value_internal, distribution)
        if self._is_content:
            self._parameters.append(parameter)
        else:
            super().set_trial_param(*parameter)

    def _write_parameters(self) -> None:
        if not self._parameters:
            return
        with _create_scoped_session(self._database.scoped_session) as session:
            rows = []
            for trial_id, name, value, distribution in self._parameters:
                study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
                known = self._studies[study_id].param_distribution
                if name in known:
                    check_distribution_compatibility(known[name], distribution)
                    rows.append(_parameter_row(trial_id, name, value, distribution))
                else:
                    self._database._set_trial_param_without_commit(
                        session, trial_id, name, value, distribution
                    )
                    known[name] = distribution
            if rows:
                self._refuse_ended(session, {row["trial_id"] for row in rows})
                session.execute(insert(models.TrialParamModel), rows)

    def _refuse_ended(self, session: Session, trial_ids: Collection[int]) -> None:
        """UpdateFinishedTrialError where a trial has ended."""
        trial = models.TrialModel
        wanted = select(trial.trial_id, trial.state).where(trial.trial_id.in_(trial_ids))
        for trial_id, state in session.execute(wanted):
            self._database.check_trial_is_updatable(trial_id, state)

    def set_trial_user_attrs(self, trial_id: int, values: Mapping[str, Any]) -> None:
        """All of them or none, in one transaction; on PostgreSQL in one statement."""
        database, kind = self._database, models.TrialUserAttributeModel
        with _create_scoped_session(database.scoped_session) as session:
            if self.engine.dialect.name != "postgresql":
                for key, value in values.items():
                    database._set_trial_attr_without_commit(session, kind, trial_id, key, value)
                return
            self._refuse_ended(session, [trial_id])
            session.execute(_upsert(trial_id, values))


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


def _parameter_row(
    trial_id: int, name: str, value: float, distribution: BaseDistribution
) -> dict[str, Any]:
    return {
        "trial_id": trial_id,
        "param_name": name,
        "param_value": value,
        "distribution_json": distribution_to_json(distribution),
    }


def _upsert(trial_id: int, values: Mapping[str, Any]) -> postgresql.Insert:
    kind = models.TrialUserAttributeModel
    rows = [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in values.items()
    ]
    new = postgresql.insert(kind).values(rows)
    return new.on_conflict_do_update(
        index_elements=[kind.trial_id, kind.key], set_={"value_json": new.excluded.value_json}
    )
