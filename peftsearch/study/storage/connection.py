"""Where Optuna keeps a study: the journal in its folder, or a database that many machines reach.

A database's password is never written: addresses are shown and stored without it. It is taken from
$PEFTSEARCH_STORAGE (which `--storage` sets for the processes of a search), or by PostgreSQL's own
client from ~/.pgpass and $PGPASSWORD.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftsearch.errors import MissingError, UsageError
from peftsearch.records.storage_name import VARIABLE, is_database
from peftsearch.study.storage.journal import open_journal
from peftsearch.study.storage.retry import Retry

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import URL

    from peftsearch.study.storage.database.cached import CachedDatabase
    from peftsearch.study.storage.database.plain_reads import PlainDatabase

__all__ = [
    "VARIABLE",
    "StorageAddress",
    "close_storage",
    "database",
    "is_database",
    "open_database",
    "open_storage",
]

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_SECRETS = ("password", "sslpassword")
START_S = 30.0
"""How long a database that does not answer is asked again before a search begins with it."""


@dataclass(frozen=True)
class StorageAddress:
    """A database: `shown` has no password, `whole` may have one."""

    shown: str
    whole: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> StorageAddress:
        """`postgresql://user:password@host/database`; UsageError, which does not repeat it."""
        from sqlalchemy import URL, make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            raise UsageError(
                "--storage cannot be read: write postgresql://user:password@host/database, with "
                "special characters of the password percent-encoded"
            ) from None
        if url.get_backend_name() not in ("postgresql", "postgres", "mysql", "mariadb"):
            raise UsageError(
                f"--storage {url.drivername}: many workers need postgresql://… or "
                "mysql+pymysql://…; leave it out for the journal, which serves one machine"
            )
        shown = URL.create(
            *(url.drivername, url.username, None, url.host, url.port, url.database),
            query=url.query,
        ).difference_update_query(_SECRETS)
        driver = _DRIVERS.get(url.drivername, url.drivername)
        return cls(_text(shown), _text(url.set(drivername=driver)))

    @classmethod
    def of(cls, shown: str) -> StorageAddress:
        """A study's database as this process reaches it: $PEFTSEARCH_STORAGE, or as `shown`."""
        return cls.parse(os.environ.get(VARIABLE) or shown)

    def without_password(self, text: str) -> str:
        """A text in which the password, should it stand there, is not to be read."""
        from sqlalchemy import make_url

        url = make_url(self.whole)
        secrets = {str(url.password or ""), *(str(url.query.get(key, "")) for key in _SECRETS)}
        for secret in secrets - {""}:
            text = text.replace(secret, "***")
        return text


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def open_storage(storage: str, journal: Path) -> BaseStorage:
    """The storage that a study's `storage` names; `journal` is the path of its journal."""
    if not is_database(storage):
        return open_journal(journal)
    return open_database(StorageAddress.of(storage))


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
    from peftsearch.study.storage.database.cached import CachedDatabase

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
