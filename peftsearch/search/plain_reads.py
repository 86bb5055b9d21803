"""Optuna's trials out of a database, as rows: reading them is what workers wait for most.

Optuna builds an object for every row, and asks for each kind of them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, literal, or_, select, union_all

__all__ = ["PlainDatabase"]

_AT_ONCE = 10_000
"""Trials of one statement: PostgreSQL takes 65,535 values."""

_Trial = models.TrialModel
_Param = models.TrialParamModel
_Value = models.TrialValueModel
_Attributes: tuple[Any, Any] = models.TrialUserAttributeModel, models.TrialSystemAttributeModel
_Rows = dict[int, list[tuple[Any, ...]]]


class PlainDatabase(RDBStorage):
    """Reads the same trials with fewer and plainer statements; we report no intermediate values,
    and none are read.
    """

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        if states is not None:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        of_study = select(
            *(_Trial.trial_id, _Trial.number, _Trial.state),
            *(_Trial._datetime_start_utc, _Trial._datetime_complete_utc),
        ).where(_Trial.study_id == study_id)
        wanted = of_study.where(
            or_(
                _Trial.trial_id.in_(included_trial_ids),
                _Trial.trial_id > trial_id_greater_than,
            )
        )
        with self.engine.connect() as connection:
            rows = connection.execute(wanted.order_by(_Trial.trial_id)).all()
            return _trials(connection, rows) if rows else []


def _trials(connection: Connection, rows: Sequence[Any]) -> list[FrozenTrial]:
    ids = [row[0] for row in rows]
    ended = [row[0] for row in rows if row[2] == TrialState.COMPLETE]
    parameters = _by_trial(
        *(connection, ids, _Param.param_id, _Param),
        *(_Param.param_name, _Param.param_value, _Param.distribution_json),
    )
    values = _by_trial(connection, ended, _Value.objective, _Value, _Value.value, _Value.value_type)
    users, systems = _attributes(connection, ids)
    found = []
    for trial_id, number, state, began, ended in rows:
        known = {name: _distribution(text) for name, _, text in parameters[trial_id]}
        found.append(
            FrozenTrial(
                number=number,
                state=state,
                value=None,
                values=[_Value.stored_repr_to_value(*one) for one in values[trial_id]] or None,
                datetime_start=_local(began),
                datetime_complete=_local(ended),
                params={
                    name: known[name].to_external_repr(value)
                    for name, value, _ in parameters[trial_id]
                },
                distributions=known,
                user_attrs={key: json.loads(text) for key, text in users[trial_id]},
                system_attrs={key: json.loads(text) for key, text in systems[trial_id]},
                intermediate_values={},
                trial_id=trial_id,
            )
        )
    return found


def _by_trial(
    connection: Connection, ids: Sequence[int], order: Any, kind: Any, *columns: Any
) -> _Rows:
    """Rows of the columns, by the trial that they belong to."""
    found: _Rows = defaultdict(list)
    for some in _parts(ids):
        wanted = select(kind.trial_id, *columns).where(kind.trial_id.in_(some)).order_by(order)
        for row in connection.execute(wanted):
            found[row[0]].append(tuple(row[1:]))
    return found


def _attributes(connection: Connection, ids: Sequence[int]) -> tuple[_Rows, _Rows]:
    """(key, JSON) of users' and of Optuna's own attributes, in one statement."""
    found: tuple[_Rows, _Rows] = defaultdict(list), defaultdict(list)
    for some in _parts(ids):
        both = union_all(
            *(
                select(literal(which), kind.trial_id, kind.key, kind.value_json).where(
                    kind.trial_id.in_(some)
                )
                for which, kind in enumerate(_Attributes)
            )
        )
        for which, trial_id, key, text in connection.execute(both):
            found[which][trial_id].append((key, text))
    return found


def _parts(ids: Sequence[int]) -> list[Sequence[int]]:
    return [ids[first : first + _AT_ONCE] for first in range(0, len(ids), _AT_ONCE)]


@lru_cache(maxsize=10_000)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _local(moment: datetime | None) -> datetime | None:
    """Naive UTC → naive local time."""
    return None if moment is None else moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
