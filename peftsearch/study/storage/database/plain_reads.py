"""Reading Optuna's trials from a database with plain statements.

Workers wait for this most. Optuna sends a statement for each kind of row and builds an object for
each row; here two statements return plain tuples.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Sequence
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    CompoundSelect,
    Connection,
    Double,
    Engine,
    Text,
    bindparam,
    cast,
    literal,
    null,
    or_,
    select,
    union_all,
)

from peftsearch.study.storage.attributes import HASH

__all__ = ["PlainDatabase"]

_AT_ONCE = 10_000
"""Trials in each part of a statement: PostgreSQL takes 65,535 values."""

_Trial, _Param, _Value = models.TrialModel, models.TrialParamModel, models.TrialValueModel
_User, _System = models.TrialUserAttributeModel, models.TrialSystemAttributeModel
_Kind = _Value.TrialValueType

_Row = tuple[Any, ...]
_Rows = dict[int, list[_Row]]


_TRIALS = (
    select(
        *(_Trial.trial_id, _Trial.number, _Trial.state),
        *(_Trial._datetime_start_utc, _Trial._datetime_complete_utc),
    )
    .where(
        _Trial.study_id == bindparam("study"),
        or_(
            _Trial.trial_id.in_(bindparam("ids", expanding=True)),
            _Trial.trial_id > bindparam("after"),
        ),
    )
    .order_by(_Trial.trial_id)
)

_NO_TEXT, _NO_NUMBER = cast(null(), Text), cast(null(), Double)


def _text(column: Any) -> Any:
    """The column as text of one collation: MySQL refuses a UNION of two."""
    return cast(column, Text)


_PARTS: tuple[tuple[Any, ...], ...] = (
    (_Value.trial_id, _Value.objective, _NO_TEXT, _Value.value, _text(_Value.value_type)),
    *(
        (kind.trial_id, order, _text(kind.key), _NO_NUMBER, _text(kind.value_json))
        for kind, order in (
            (_User, _User.trial_user_attribute_id),
            (_System, _System.trial_system_attribute_id),
        )
    ),
    (
        *(_Param.trial_id, _Param.param_id),
        *(_text(_Param.param_name), _Param.param_value, _text(_Param.distribution_json)),
    ),
)
"""Columns (trial, order, name, number, text) of values, user and system attributes, parameters."""


class PlainDatabase(RDBStorage):
    """Optuna's database, whose trials are read with two plain statements; what cannot change any
    more is read once. Intermediate values are not read: we report none.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._parameters: dict[int, list[_Row]] = {}
        """Parameters of running trials that have all of theirs, by Optuna's id."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        if states is not None:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        asked = {"study": study_id, "ids": list(included_trial_ids), "after": trial_id_greater_than}
        with self.for_single_statements() as connection:
            rows = connection.execute(_TRIALS, asked).all()
            return self._trials(connection, rows) if rows else []

    @property
    def is_postgres(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    @cached_property
    def _statements(self) -> Engine:
        autocommit = {"isolation_level": "AUTOCOMMIT"} if self.is_postgres else {}
        return self.engine.execution_options(**autocommit)

    def for_single_statements(self) -> Connection:
        """A connection on which each statement is its own transaction. On PostgreSQL only, whose
        default isolation (READ COMMITTED) sees no more within a transaction; BEGIN and COMMIT would
        be two more round trips.
        """
        return self._statements.connect()

    def _trials(self, connection: Connection, rows: Sequence[Any]) -> list[FrozenTrial]:
        ids = [row[0] for row in rows]
        values, users, systems, parameters = _parts_of(
            connection,
            [row[0] for row in rows if row[2] == TrialState.COMPLETE],
            ids,
            ids,
            [one for one in ids if one not in self._parameters],
        )
        found = []
        for trial_id, number, state, began, ended in rows:
            asked = self._parameters.get(trial_id) or parameters[trial_id]
            known = {name: _distribution(text) for name, _, text in asked}
            attributes = {key: json.loads(text) for key, _, text in users[trial_id]}
            # A running trial that has its hash has all of its parameters, too.
            self._keep(trial_id, asked, state == TrialState.RUNNING and HASH.is_in(attributes))
            found.append(
                FrozenTrial(
                    number=number,
                    state=state,
                    value=None,
                    values=_values(values[trial_id]) or None,
                    datetime_start=_local(began),
                    datetime_complete=_local(ended),
                    params={name: known[name].to_external_repr(value) for name, value, _ in asked},
                    distributions=known,
                    user_attrs=attributes,
                    system_attrs={key: json.loads(text) for key, _, text in systems[trial_id]},
                    intermediate_values={},
                    trial_id=trial_id,
                )
            )
        return found

    def _keep(self, trial_id: int, parameters: list[_Row], is_final: bool) -> None:
        if is_final:
            self._parameters[trial_id] = parameters
        else:
            self._parameters.pop(trial_id, None)  # one that has ended is not read again


def _parts_of(connection: Connection, *wanted: Sequence[int]) -> list[_Rows]:
    """Rows that belong to trials, by trial and in their order; `wanted` has the trials' ids for
    each of `_PARTS`. One statement for every `_AT_ONCE` trials.
    """
    found: list[_Rows] = [defaultdict(list) for _ in wanted]
    for first in range(0, max(map(len, wanted)), _AT_ONCE):
        some = {f"ids{n}": ids[first : first + _AT_ONCE] for n, ids in enumerate(wanted)}
        asked = {name: ids for name, ids in some.items() if ids}
        rows = connection.execute(_union(tuple(bool(ids) for ids in some.values())), asked).all()
        for which, trial_id, _, *row in sorted(rows, key=lambda row: (row[0], row[2])):
            found[which][trial_id].append(tuple(row))
    return found


@lru_cache
def _union(wanted: tuple[bool, ...]) -> CompoundSelect[Any]:
    """The statement for the wanted parts; cached, as building takes longer than its answer."""
    return union_all(
        *(
            select(literal(n), *part).where(part[0].in_(bindparam(f"ids{n}", expanding=True)))
            for n, (part, is_wanted) in enumerate(zip(_PARTS, wanted, strict=True))
            if is_wanted
        )
    )


def _values(rows: Sequence[_Row]) -> list[float]:
    """Objective values; Optuna stores infinities by name."""
    return [_Value.stored_repr_to_value(value, _Kind[kind]) for _, value, kind in rows]


@lru_cache(maxsize=10_000)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _local(moment: datetime | None) -> datetime | None:
    """Naive UTC to naive local time, as Optuna shows it."""
    return None if moment is None else moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
