"""The lock of a study in a database: a row that one transaction at a time may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftsearch.errors import UsageError
from peftsearch.study.storage.attributes import LOCK

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["RowLock"]

# A holder that is suspended, or whose machine is gone, loses the lock after 60 s; who has waited
# for 90 s gets an error, and `Retry` tries again.
_POSTGRES_LIMITS = (
    "SELECT set_config('idle_in_transaction_session_timeout', '60s', true), "
    "set_config('lock_timeout', '90s', true)"
)
"""Set for this transaction alone (`true`)."""


class RowLock:
    """Exclusive between all workers of a study; freed when its holder dies, by the database.

    Works wherever rows can be locked (PostgreSQL, MySQL). Not to be taken twice.
    """

    def __init__(self, engine: Engine, study_id: int) -> None:
        self._engine, self._study_id = engine, study_id
        self._connection: Connection | None = None

    def __enter__(self) -> RowLock:
        if self._connection is not None:
            raise RuntimeError("this lock is already held")
        connection = self._engine.connect()
        try:
            self._take(connection)
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        self._connection = connection
        return self

    def __exit__(self, *error: object) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        try:
            connection.rollback()
        except BaseException:
            connection.invalidate()
            raise
        finally:
            connection.close()

    def _take(self, connection: Connection) -> None:
        from optuna.storages._rdb.models import StudyUserAttributeModel as Row
        from sqlalchemy import select, text

        if connection.dialect.name == "postgresql":
            connection.execute(text(_POSTGRES_LIMITS))
        mine = (Row.study_id == self._study_id) & (Row.key == LOCK.key)
        held = connection.execute(select(Row.key).where(mine).with_for_update()).first()
        if held is None:
            raise UsageError("the study was deleted from its database")
