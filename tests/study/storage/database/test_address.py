"""Addresses of databases: what they mean, and that their passwords are shown nowhere."""

from __future__ import annotations

import pytest

from peftsearch.errors import UsageError
from peftsearch.records.storage_name import JOURNAL, VARIABLE, is_database
from peftsearch.study.storage.database.address import StorageAddress

WHOLE = "postgresql://owner:s%3Acret@db.example:5433/studies?connect_timeout=3"


def test_an_address_is_shown_without_its_password() -> None:
    address = StorageAddress.parse(WHOLE)
    assert address.redacted == "postgresql://owner@db.example:5433/studies?connect_timeout=3"
    assert "s%3Acret" in address.full
    assert "cret" not in repr(address)
    assert address.without_password("no s:cret here") == "no *** here"


def test_a_password_among_the_options_is_not_shown_either() -> None:
    address = StorageAddress.parse("postgresql://owner@db/studies?password=s3cret&sslmode=require")
    assert address.redacted == "postgresql://owner@db/studies?sslmode=require"
    assert address.without_password("s3cret") == "***"


def test_the_environment_says_how_a_database_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, WHOLE)
    assert StorageAddress.of("postgresql://owner@elsewhere/studies") == StorageAddress.parse(WHOLE)
    monkeypatch.delenv(VARIABLE)
    assert StorageAddress.of("postgresql://owner@here/db").redacted == "postgresql://owner@here/db"


@pytest.mark.parametrize(
    "text",
    ["sqlite:///s3cret.db", "redis://me:s3cret@db/0", "s3cret", "postgresql://me:s3cret@db:x/y"],
)
def test_what_is_no_address_of_ours_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        StorageAddress.parse(text)
    assert "s3cret" not in str(refused.value)


def test_the_journal_is_no_database() -> None:
    assert not is_database(JOURNAL)
    assert is_database("postgresql://db/studies")
