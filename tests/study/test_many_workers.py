"""Many workers on one study, killed again and again, their database too: nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.records.storage_name import VARIABLE
from peftsearch.study import recovery
from support.killed_workers import Plan, killed_on_many_machines, killed_on_one_machine
from support.mariadb import has_mariadb, mariadb_server
from support.postgres import PostgresServer


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the runs set for their forks is as before afterwards."""
    monkeypatch.setattr(recovery, "MAX_CUT_OFFS", recovery.MAX_CUT_OFFS)
    monkeypatch.setenv(VARIABLE, "")


@pytest.mark.slow
def test_workers_of_many_machines_and_their_database_are_killed_and_nothing_is_lost(
    postgres: PostgresServer, tmp_path: Path, tiny_bert: Path
) -> None:
    plan = Plan(5, configurations=24, rung_s=0.1, kill_every_s=1.5, restarts=(3.0, 6.0))
    outcome = killed_on_many_machines(plan, postgres, tiny_bert, tmp_path)
    assert outcome.problems == []
    assert outcome.killed >= 2


@pytest.mark.slow
@pytest.mark.skipif(not has_mariadb(), reason="needs a MariaDB server: Debian's mariadb-server")
def test_workers_on_mysql_and_their_database_are_killed_and_nothing_is_lost(
    tmp_path: Path, tiny_bert: Path
) -> None:
    plan = Plan(4, configurations=16, rung_s=0.1, kill_every_s=1.5, restarts=(3.0,))
    with mariadb_server() as server:
        outcome = killed_on_many_machines(plan, server, tiny_bert, tmp_path)
    assert outcome.problems == []
    assert outcome.killed >= 2


@pytest.mark.slow
def test_workers_of_one_machine_are_killed_and_nothing_is_lost(
    tmp_path: Path, tiny_bert: Path
) -> None:
    plan = Plan(4, configurations=40, rung_s=0.1, kill_every_s=0.6)
    outcome = killed_on_one_machine(plan, tiny_bert, tmp_path)
    assert outcome.problems == []
    assert outcome.killed >= 2
