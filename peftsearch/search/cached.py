"""Optuna's cache of a database, spared of statements: each is a way there and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session

__all__ = ["CachedDatabase"]


class CachedDatabase(_CachedStorage):
    """What `get_storage` would make of a database, and two ways to ask less of it.

    TPE reads all trials again for each group of parameters that it samples, and every attribute is
    a transaction: of 192 statements that a trial took on PostgreSQL 110 are left.
    """

    def __init__(self, database: RDBStorage) -> None:
        super().__init__(database)
        self._database, self._is_content = database, False
        self.engine = database.engine

    @contextlib.contextmanager
    def as_read(self) -> Iterator[None]:
        """Nothing new of others is read in this block; each trial begun here is known."""
        before, self._is_content = self._is_content, True
        try:
            yield
        finally:
            self._is_content = before

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if not self._is_content:
            super()._read_trials_from_remote_storage(study_id)

    def set_trial_user_attrs(self, trial_id: int, values: Mapping[str, Any]) -> None:
        """All of them or none, in one transaction."""
        with _create_scoped_session(self._database.scoped_session) as session:
            for key, value in values.items():
                self._database._set_trial_attr_without_commit(
                    session, models.TrialUserAttributeModel, trial_id, key, value
                )
