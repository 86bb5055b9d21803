"""The address of a study's database, shown and stored without its password.

The password is taken from $PEFTSEARCH_STORAGE (which `--storage` sets for the processes of a
search), or by PostgreSQL's own client from ~/.pgpass and $PGPASSWORD.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peftsearch.errors import UsageError
from peftsearch.records.storage_name import VARIABLE

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["StorageAddress"]

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_SECRETS = ("password", "sslpassword")


@dataclass(frozen=True)
class StorageAddress:
    """A database: `redacted` has no password, `full` may have one."""

    redacted: str
    full: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> StorageAddress:
        """Parse `postgresql://user:password@host/database`; UsageError without repeating it."""
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
                "mysql+pymysql://…; leave it out for the journal, which works on one machine only"
            )
        redacted = URL.create(
            *(url.drivername, url.username, None, url.host, url.port, url.database),
            query=url.query,
        ).difference_update_query(_SECRETS)
        driver = _DRIVERS.get(url.drivername, url.drivername)
        return cls(_text(redacted), _text(url.set(drivername=driver)))

    @classmethod
    def of(cls, redacted: str) -> StorageAddress:
        """The address with which to connect to a database: $PEFTSEARCH_STORAGE, or `redacted`."""
        return cls.parse(os.environ.get(VARIABLE) or redacted)

    def without_password(self, text: str) -> str:
        """The text with the password, wherever it appears, replaced by `***`."""
        from sqlalchemy import make_url

        url = make_url(self.full)
        secrets = {str(url.password or ""), *(str(url.query.get(key, "")) for key in _SECRETS)}
        for secret in secrets - {""}:
            text = text.replace(secret, "***")
        return text


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
