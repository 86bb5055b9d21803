"""Retrying database operations through outages, such as a restart of the server."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from peftsearch.errors import MissingError

__all__ = ["Retry", "is_outage", "retried"]

T = TypeVar("T")
P = ParamSpec("P")

_PAUSE_S = 0.5
_REFUSALS = (
    *("authentication failed", "does not exist", "no password supplied", "no pg_hba.conf"),
    *("Access denied", "Unknown database"),
)
"""Answers of PostgreSQL and MySQL that retrying does not change."""
_OUT_OF_STEP = "results from command"
"""In psycopg's error when PgBouncer reports an outage in place of an answer."""


class Retry:
    """Repeats operations that an outage of `storage` (its address without password) interrupted.

    After `limit_s` seconds of an outage it raises MissingError. `between` is called before every
    repetition; `hide` removes secrets from an error's text. An operation may have succeeded in part
    or in full before a retry, so it must be idempotent. `outages` counts failed attempts.
    """

    def __init__(
        self,
        storage: str,
        limit_s: float = 600.0,
        between: Callable[[], None] = lambda: None,
        hide: Callable[[str], str] = lambda text: text,
    ) -> None:
        self.storage, self.limit_s = storage, limit_s
        self.outages = 0
        self._between, self._hide = between, hide

    def call(self, do: Callable[[], T]) -> T:
        """Call `do` until it succeeds; returns its value."""
        began: float | None = None
        while True:
            try:
                return do()
            except Exception as error:
                if not is_outage(error):
                    raise
                now = time.monotonic()
                began = now if began is None else began
                self.outages += 1
                if now - began > self.limit_s or _is_refusal(error):
                    # Without the cause: its text may quote the connection.
                    raise MissingError(
                        f"{self.storage}: the database cannot be used "
                        f"({self._hide(_sentence(error))}); finished trials are safe"
                    ) from None
            time.sleep(_PAUSE_S)
            with contextlib.suppress(Exception):  # it clears what the outage has broken
                self._between()


class _HasRetry(Protocol):
    @property
    def retry(self) -> Retry: ...


S = TypeVar("S", bound=_HasRetry)


def retried(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Decorator: retry an idempotent method through outages."""

    @functools.wraps(method)
    def repeated(self: S, *args: P.args, **options: P.kwargs) -> T:
        return self.retry.call(lambda: method(self, *args, **options))

    return repeated  # type: ignore[return-value]


def is_outage(error: BaseException) -> bool:
    """Whether an error means that the database was unreachable or busy, so a retry may succeed."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, PendingRollbackError
    from sqlalchemy.exc import TimeoutError as NoConnectionLeft

    cause: Any = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, InternalError):
        return _OUT_OF_STEP in str(cause)
    return isinstance(
        cause, OperationalError | InterfaceError | PendingRollbackError | NoConnectionLeft
    )


def _is_refusal(error: BaseException) -> bool:
    text = str(error.__cause__ or error)
    return any(refusal in text for refusal in _REFUSALS)


def _sentence(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(getattr(cause, "orig", None) or cause).strip().splitlines()[0].rstrip(".;")
