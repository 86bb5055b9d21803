"""Connections to a study's database, through Optuna's storage of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from peftsearch.errors import MissingError
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.retry import Retry

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from peftsearch.study.storage.database.cached_database import CachedDatabase
    from peftsearch.study.storage.database.plain_reads import PlainDatabase

__all__ = ["close_storage", "database", "open_database"]

START_S = 30.0
"""How long a database that does not answer is asked again before a search begins with it."""


def close_storage(storage: BaseStorage) -> None:
    """Close the connections to a database, which opens others if it is asked again; a journal has
    none.
    """
    engine = getattr(storage, "engine", None)
    if engine is not None:
        try:
            storage.remove_session()
        finally:
            engine.dispose()


@contextlib.contextmanager
def database(address: StorageAddress, limit_s: float = START_S) -> Iterator[BaseStorage]:
    """A database for a few questions; MissingError if it does not answer for `limit_s`."""
    storage = open_database(address, limit_s)
    try:
        yield storage
    finally:
        close_storage(storage)


def open_database(address: StorageAddress, limit_s: float = START_S) -> CachedDatabase:
    """MissingError if it does not answer for `limit_s`."""
    from peftsearch.study.storage.database.cached_database import CachedDatabase

    retry = Retry(address.shown, limit_s, hide=address.without_password)
    return CachedDatabase(retry.call(lambda: _connect(address)))


def _connect(address: StorageAddress) -> PlainDatabase:
    from sqlalchemy import make_url

    from peftsearch.study.storage.database.plain_reads import PlainDatabase

    # It warns of an outage with the whole statement, and then fails in a way that we wait through.
    logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)
    # A worker uses two connections at most times: one waits for the study's lock. The third is the
    # heartbeat's. One that a restarted database cut is found when it is used, and what was asked is
    # asked again (`retry.py`): to try it before every use is a way there and back, more than a
    # dozen times a trial.
    engine: dict[str, Any] = {"pool_size": 2, "max_overflow": 4}
    if make_url(address.whole).get_driver_name() == "psycopg":
        # Statements that the server prepared are lost where connections are shared (PgBouncer).
        engine["connect_args"] = {"prepare_threshold": None}
    try:
        return PlainDatabase(address.whole, engine_kwargs=engine)
    except ImportError as error:
        raise MissingError(
            f"{address.shown}: the database's driver is missing; pip install "
            "'peftsearch[postgres]', or for MySQL 'peftsearch[mysql]'"
        ) from error
