"""Beginning a study from options: everything that is quickly refused first, then model and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from peftsearch.api.options import Options
from peftsearch.api.request import new_study, refuse_cohort_of_low_rungs
from peftsearch.errors import UsageError

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder

__all__ = ["begin_study"]


def begin_study(options: Options, say: Callable[[str], None], go_on: str) -> StudyFolder:
    """The new study that the options describe, written to its folder.

    `say` hears notes on the data and the model; `go_on` is what resumes a study of this name, for
    the error to quote if there is one.
    """
    from peftsearch.records.folder import StudyFolder

    refuse_cohort_of_low_rungs(options.get("cohort"), options.get("low_rungs"))
    new = new_study(options)
    StudyFolder.new(new.name, options.get("studies"), go_on)
    new.refuse_unusable()
    _refuse_storage(new.name, new.storage, new.artifacts)
    task = new.open_task()
    from peftsearch.study.create import create_study  # seconds, of importing torch

    return create_study(new, options.get("studies"), go_on, say, task)


def _refuse_storage(name: str, storage: str, artifacts: str | None) -> None:
    """UsageError if the database has a study of this name, or artifacts cannot be stored."""
    from peftsearch.records.storage_name import is_database

    if not is_database(storage):
        if artifacts is not None:
            raise UsageError("--artifacts is only used with --storage: give --storage, too")
        return
    from peftsearch.study.storage.artifacts import open_artifacts
    from peftsearch.study.storage.database.address import StorageAddress
    from peftsearch.study.storage.database.copies import refuse_taken

    refuse_taken(name, StorageAddress.of(storage))
    if artifacts is not None:
        open_artifacts(artifacts, "").try_out()
