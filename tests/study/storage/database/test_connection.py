"""Connecting to a database: refusals, outages, passwords and poolers."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy

from peftsearch.errors import MissingError
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.connection import database
from support.postgres import PASSWORD, PostgresServer

pytestmark = pytest.mark.internals


def test_a_wrong_password_is_one_sentence_at_once_that_does_not_repeat_it(
    postgres: PostgresServer,
) -> None:
    address = StorageAddress.parse(postgres.address("postgres", "wr0ng!word"))
    with (
        pytest.raises(MissingError, match="password authentication failed") as refused,
        database(address),
    ):
        pass
    assert refused.value.__cause__ is None
    for text in (str(refused.value), repr(refused.value)):
        assert "wr0ng" not in text


def test_pgpass_holds_the_password_where_the_address_does_not(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = StorageAddress.parse(postgres.new_database())
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"127.0.0.1:{postgres.port}:*:*:{escaped}\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    with database(StorageAddress.parse(address.shown)) as storage:
        assert storage.get_all_studies() == []


def test_a_database_that_is_not_there_is_asked_again_for_a_while_only(
    postgres: PostgresServer,
) -> None:
    address = StorageAddress.parse("postgresql://owner@127.0.0.1:1/db")
    with (
        pytest.raises(MissingError, match=r"^postgresql://owner@127\.0\.0\.1:1/db: "),
        database(address, limit_s=0.1),
    ):
        pass


def test_no_connection_keeps_statements_that_a_pooler_would_give_to_another(
    postgres: PostgresServer,
) -> None:
    with database(StorageAddress.parse(postgres.new_database())) as storage:
        engine = storage._backend.engine  # type: ignore[attr-defined]
        often = sqlalchemy.text("SELECT study_id FROM studies WHERE study_id = 1")
        kept = sqlalchemy.text("SELECT count(*) FROM pg_prepared_statements")
        with engine.connect() as connection:
            for _ in range(20):
                connection.execute(often)
            assert connection.execute(kept).scalar_one() == 0
