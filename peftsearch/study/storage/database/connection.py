"""Connections to a study's database, through Optuna's storage of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from peftsearch.errors import MissingError
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.retry import Retry

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from peftsearch.study.storage.database.cached_database import CachedDatabase
    from peftsearch.study.storage.database.plain_reads import PlainDatabase

__all__ = ["READ_LIMIT_S", "close_storage", "in_database", "open_database"]

T = TypeVar("T")

READ_LIMIT_S = 5.0
"""Time limit for a database to answer when a study is only read."""
START_LIMIT_S = 30.0
"""Time limit for a database to answer before a search begins."""


def close_storage(storage: BaseStorage) -> None:
    """Close a storage's connections to its database, which opens new ones when it is used again;
    a journal has none.
    """
    engine = getattr(storage, "engine", None)
    if engine is not None:
        try:
            storage.remove_session()
        finally:
            engine.dispose()


def in_database(
    address: StorageAddress, do: Callable[[BaseStorage], T], limit_s: float = START_LIMIT_S
) -> T:
    """Connect to a database, call `do` with it, close the connections; returns the result.

    `do` is repeated through outages, and may have been done half or whole before; MissingError
    after `limit_s` without an answer.
    """
    storage = open_database(address, limit_s)
    retry = Retry(
        address.redacted,
        limit_s,
        between=lambda: close_storage(storage),
        hide=address.without_password,
    )
    try:
        return retry.call(lambda: do(storage))
    finally:
        with contextlib.suppress(Exception):  # in an outage closing fails, too
            close_storage(storage)


def open_database(address: StorageAddress, limit_s: float = START_LIMIT_S) -> CachedDatabase:
    """Connect to a database; MissingError if it does not answer for `limit_s`."""
    from peftsearch.study.storage.database.cached_database import CachedDatabase

    retry = Retry(address.redacted, limit_s, hide=address.without_password)
    return CachedDatabase(retry.call(lambda: _connect(address)))


def _connect(address: StorageAddress) -> PlainDatabase:
    from sqlalchemy import make_url

    from peftsearch.study.storage.database.plain_reads import PlainDatabase

    # It logs the whole statement at every outage, and then raises an error that `Retry` handles.
    logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)
    # A worker mostly uses two connections: one waits for the study's lock. The third is the
    # heartbeat's. A connection that a restarted database cut fails when it is used, and `Retry`
    # repeats the operation: pool_pre_ping would cost a round trip before every use, more than a
    # dozen a trial.
    engine: dict[str, Any] = {"pool_size": 2, "max_overflow": 4}
    if make_url(address.full).get_driver_name() == "psycopg":
        # PgBouncer shares connections between clients: prepared statements would get lost.
        engine["connect_args"] = {"prepare_threshold": None}
    try:
        return PlainDatabase(address.full, engine_kwargs=engine)
    except ImportError as error:
        raise MissingError(
            f"{address.redacted}: the database's driver is missing; pip install "
            "'peftsearch[postgres]', or for MySQL 'peftsearch[mysql]'"
        ) from error
