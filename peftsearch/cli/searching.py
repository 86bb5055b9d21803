"""Running `peftsearch search`: quick checks first, then load and search."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftsearch.api.options import Said
from peftsearch.api.request import (
    existing_study,
    given,
    limits_of,
    means_of,
    new_study,
    refuse_cohort_of_low_rungs,
    refuse_other_means,
)
from peftsearch.cli.storage import hear_storage, without_storage
from peftsearch.cli.terminal.console import say
from peftsearch.errors import UsageError

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder

__all__ = ["search_as_said"]


def search_as_said(parameters: Mapping[str, Any]) -> None:
    """`search` with the values of its parameters (`flags.py` says what each is)."""
    said = given(parameters)
    limits_of(said, waits=False)  # refused first
    if "dry_run" in said:
        _dry_run(said)
        return
    folder = _resumed(said) if "resume" in said else _begun(said)
    _search(folder, said)


def _search(folder: StudyFolder, said: Said) -> None:
    from peftsearch.cli.watch import watch_local
    from peftsearch.records.storage_name import is_database
    from peftsearch.search.run import run_search

    limits = limits_of(said, waits=is_database(folder.read_info().storage))
    workers, as_json = said.get("workers"), "json" in said
    watch_local(run_search, folder, limits, workers, means_of(said), as_json)


def _resumed(said: Said) -> StudyFolder:
    folder = existing_study(said)
    hear_storage(folder.name, folder.read_info().storage, said.get("storage"))
    refuse_other_means(folder, means_of(said))
    from peftsearch.study.ready import refuse_missing  # with pandas

    refuse_missing(folder.read_info())
    return folder


def _begun(said: Said) -> StudyFolder:
    from peftsearch.records.folder import StudyFolder

    refuse_cohort_of_low_rungs(said.get("cohort"), said.get("low_rungs"))
    asked = new_study(said)
    go_on = " ".join(map(shlex.quote, ["peftsearch", *without_storage(sys.argv[1:]), "--resume"]))
    StudyFolder.new(asked.name, said.get("studies"), go_on)
    asked.refuse_unusable()
    _refuse_storage(asked.name, asked.storage, asked.artifacts)
    task = asked.open_task()
    from peftsearch.study.create import create_study  # seconds, of importing torch

    return create_study(asked, said.get("studies"), go_on, say, task)


def _refuse_storage(name: str, storage: str, artifacts: str | None) -> None:
    """UsageError if the database has a study of this name, or artifacts cannot be stored."""
    from peftsearch.records.storage_name import is_database

    if not is_database(storage):
        if artifacts is not None:
            raise UsageError("--artifacts is for workers on many machines: give --storage, too")
        return
    from peftsearch.study.storage.artifacts import open_artifacts
    from peftsearch.study.storage.connection import StorageAddress
    from peftsearch.study.storage.database.copies import refuse_taken

    refuse_taken(name, StorageAddress.of(storage))
    if artifacts is not None:
        open_artifacts(artifacts, "").try_out()


def _dry_run(said: Said) -> None:
    from peftsearch.cli.dry_run import print_dry_run, print_dry_run_of

    if "resume" in said:
        print_dry_run_of(_resumed(said), said)
        return
    refuse_cohort_of_low_rungs(said.get("cohort"), said.get("low_rungs"))
    print_dry_run(new_study(said), said)
