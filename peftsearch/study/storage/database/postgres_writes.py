"""Writes to a trial that has not ended, each in one PostgreSQL statement.

Optuna reads the trial first, and then each row: a round trip each. Every function returns whether
it wrote anything: it does not if the trial has ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import Connection, Double, Integer, Text, bindparam, cast, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.sql.dml import ReturningInsert

__all__ = ["end", "insert_parameters", "upsert_attributes"]

_Trial, _Param, _Value = models.TrialModel, models.TrialParamModel, models.TrialValueModel
_IS_OPEN = (_Trial.trial_id == bindparam("trial")) & _Trial.state.in_(
    [TrialState.RUNNING, TrialState.WAITING]
)


def _rows(**columns: Any) -> Any:
    """A table of rows from parameters that are lists, one a column; `columns`: their types."""
    arrays = (bindparam(name, type_=ARRAY(kind)) for name, kind in columns.items())
    rows = func.unnest(*arrays).table_valued(*columns, name="new", joins_implicitly=True)
    return rows.render_derived()


def _attributes(kind: Any) -> ReturningInsert[Any]:
    new = _rows(key=Text, value_json=Text)
    source = select(_Trial.trial_id, new.c.key, new.c.value_json).where(_IS_OPEN)
    wanted = insert(kind).from_select(["trial_id", "key", "value_json"], source)
    return wanted.on_conflict_do_update(
        index_elements=["trial_id", "key"], set_={"value_json": wanted.excluded.value_json}
    ).returning(kind.trial_id)


def _parameters() -> ReturningInsert[Any]:
    names = ["param_name", "param_value", "distribution_json"]
    new = _rows(param_name=Text, param_value=Double, distribution_json=Text)
    source = select(_Trial.trial_id, *(new.c[name] for name in names)).where(_IS_OPEN)
    return insert(_Param).from_select(["trial_id", *names], source).returning(_Param.trial_id)


_ENDED = (
    update(_Trial)
    .where(_IS_OPEN)
    .values(state=bindparam("ended_as"), _datetime_complete_utc=bindparam("moment"))
    .returning(_Trial.trial_id)
)


def _end_with_values() -> ReturningInsert[Any]:
    ended = _ENDED.cte("ended")
    new = _rows(objective=Integer, value=Double, value_type=Text)
    kind = cast(new.c.value_type, _Value.__table__.c.value_type.type)
    source = select(ended.c.trial_id, new.c.objective, new.c.value, kind)
    names = ["trial_id", "objective", "value", "value_type"]
    return insert(_Value).from_select(names, source).returning(_Value.trial_id)


_ATTRIBUTES = {
    kind: _attributes(kind)
    for kind in (models.TrialUserAttributeModel, models.TrialSystemAttributeModel)
}
_PARAMETERS, _ENDED_WITH_VALUES = _parameters(), _end_with_values()


def upsert_attributes(
    connection: Connection, kind: Any, trial_id: int, attributes: Mapping[str, Any]
) -> bool:
    """Insert or update attributes. `kind`: Optuna's model of user or of system attributes."""
    texts = [json.dumps(value) for value in attributes.values()]
    new = {"trial": trial_id, "key": list(attributes), "value_json": texts}
    return connection.execute(_ATTRIBUTES[kind], new).first() is not None


def insert_parameters(
    connection: Connection, trial_id: int, rows: Sequence[tuple[str, float, BaseDistribution]]
) -> bool:
    """Insert parameters: each row is a name, Optuna's internal value and a distribution."""
    names, values, distributions = zip(*rows, strict=True)
    new = {
        "trial": trial_id,
        "param_name": list(names),
        "param_value": list(map(float, values)),
        "distribution_json": list(map(distribution_to_json, distributions)),
    }
    return connection.execute(_PARAMETERS, new).first() is not None


def end(
    connection: Connection, trial_id: int, state: TrialState, values: Sequence[float] | None
) -> bool:
    """Set the trial's final state, and the values of its objectives."""
    moment = datetime.now(UTC).replace(tzinfo=None)
    how = {"trial": trial_id, "ended_as": state, "moment": moment}
    if not values:
        return connection.execute(_ENDED, how).first() is not None
    stored, kinds = zip(*map(_Value.value_to_stored_repr, values), strict=True)
    new = {
        "objective": list(range(len(values))),
        "value": list(stored),
        "value_type": [kind.name for kind in kinds],
    }
    return connection.execute(_ENDED_WITH_VALUES, how | new).first() is not None
