"""What counts as an outage, and going on through one."""

from __future__ import annotations

import psycopg
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from sqlalchemy import exc

from peftsearch.errors import MissingError
from peftsearch.study.storage import retry as retry
from peftsearch.study.storage.retry import Retry, is_outage


def of_database(kind: type[exc.DBAPIError], text: str) -> Exception:
    return kind("SELECT 1", None, psycopg.Error(text))


def within_optunas(cause: Exception) -> Exception:
    error = StorageInternalError("An exception is raised during the commit")
    error.__cause__ = cause
    return error


OUTAGES = [
    of_database(exc.OperationalError, "terminating connection due to unexpected postmaster exit"),
    of_database(exc.InterfaceError, "connection already closed"),
    exc.TimeoutError("QueuePool limit reached"),
    within_optunas(of_database(exc.OperationalError, "server closed the connection")),
    # What PgBouncer's telling of an outage comes to.
    of_database(exc.InternalError, "received 2 results from command 'ROLLBACK'"),
    within_optunas(of_database(exc.InternalError, "received 2 results from command 'BEGIN'")),
]
MISTAKES = [
    of_database(exc.InternalError, "cache lookup failed for type 0"),
    of_database(exc.ProgrammingError, 'relation "trials" does not exist'),
    UpdateFinishedTrialError("Trial#1 has already finished"),
    ValueError("no database at all"),
]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_PAUSE_S", 0.0)


def failing(error: Exception, times: int) -> list[Exception]:
    return [error] * times


@pytest.mark.parametrize("error", OUTAGES, ids=str)
def test_an_outage_is_waited_through_and_its_remains_cleared_away(error: Exception) -> None:
    errors, cleared = failing(error, 3), []

    def do() -> str:
        if errors:
            raise errors.pop()
        return "answer"

    def clear() -> None:
        cleared.append(True)
        raise OSError("broken, too")

    waiting = Retry("postgresql://db/studies", between=clear)
    assert waiting.call(do) == "answer"
    assert len(cleared) == waiting.outages == 3


@pytest.mark.parametrize("error", MISTAKES, ids=str)
def test_what_is_no_outage_is_raised_at_once(error: Exception) -> None:
    assert not is_outage(error)

    def do() -> None:
        raise error

    with pytest.raises(type(error)):
        Retry("postgresql://db/studies").call(do)


@pytest.mark.parametrize(
    ("limit_s", "text"),
    [(0.0, "server closed the connection"), (600.0, "Access denied for user 'owner'")],
)
def test_an_outage_without_end_and_a_refusal_are_one_sentence(limit_s: float, text: str) -> None:
    def do() -> None:
        raise of_database(exc.OperationalError, text)

    with pytest.raises(MissingError, match=f"db/studies: the database cannot be used .{text}"):
        Retry("postgresql://db/studies", limit_s=limit_s).call(do)
