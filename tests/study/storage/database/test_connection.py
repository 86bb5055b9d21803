"""Connecting to a database: refusals, outages, passwords and poolers."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
from optuna.storages import BaseStorage

from peftsearch.errors import MissingError
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.connection import (
    close_storage,
    in_database,
    open_database,
)
from support.postgres import PASSWORD, PostgresServer

pytestmark = pytest.mark.internals


def names(storage: BaseStorage) -> list[str]:
    return [study.study_name for study in storage.get_all_studies()]


def test_a_wrong_password_is_one_sentence_at_once_that_does_not_repeat_it(
    postgres: PostgresServer,
) -> None:
    address = StorageAddress.parse(postgres.address("postgres", "wr0ng!word"))
    with pytest.raises(MissingError, match="password authentication failed") as refused:
        in_database(address, names)
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
    assert in_database(StorageAddress.parse(address.redacted), names) == []


def test_a_database_that_is_not_there_is_asked_again_for_a_while_only(
    postgres: PostgresServer,
) -> None:
    address = StorageAddress.parse("postgresql://owner@127.0.0.1:1/db")
    with pytest.raises(MissingError, match=r"^postgresql://owner@127\.0\.0\.1:1/db: "):
        in_database(address, names, limit_s=0.1)


def test_an_outage_between_connecting_and_the_answer_is_waited_through(
    postgres: PostgresServer,
) -> None:
    """As a worker meets it that joins while the server restarts."""
    times: list[int] = []

    def asked(storage: BaseStorage) -> list[str]:
        times.append(len(times))
        if len(times) == 1:
            with storage._backend.engine.connect() as cut:  # type: ignore[attr-defined]
                pid = cut.execute(sqlalchemy.text("SELECT pg_backend_pid()")).scalar_one()
                other = sqlalchemy.create_engine(address.full)
                with other.connect() as killer:
                    killer.execute(sqlalchemy.text(f"SELECT pg_terminate_backend({pid})"))
                other.dispose()
                cut.execute(sqlalchemy.text("SELECT 1"))
        return names(storage)

    address = StorageAddress.parse(postgres.new_database())
    assert in_database(address, asked) == []
    assert len(times) == 2


def test_no_connection_keeps_statements_that_a_pooler_would_give_to_another(
    postgres: PostgresServer,
) -> None:
    storage = open_database(StorageAddress.parse(postgres.new_database()))
    try:
        engine = storage._backend.engine  # type: ignore[attr-defined]
        often = sqlalchemy.text("SELECT study_id FROM studies WHERE study_id = 1")
        kept = sqlalchemy.text("SELECT count(*) FROM pg_prepared_statements")
        with engine.connect() as connection:
            for _ in range(20):
                connection.execute(often)
            assert connection.execute(kept).scalar_one() == 0
    finally:
        close_storage(storage)
