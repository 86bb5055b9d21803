"""Creating a study from options: cheap checks first, then loading the model and the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from peftsearch.api.options import Options
from peftsearch.api.request import new_study, refuse_cohort_of_low_rungs
from peftsearch.errors import UsageError

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder

__all__ = ["create_from_options"]


def create_from_options(
    options: Options, notify: Callable[[str], None], resume_command: str
) -> StudyFolder:
    """Create the study that the options describe; returns its folder.

    `notify` is called with notes about the data and the model. `resume_command` is quoted in the
    error that a study of this name already exists.
    """
    from peftsearch.records.folder import StudyFolder

    refuse_cohort_of_low_rungs(options.get("cohort"), options.get("low_rungs"))
    request = new_study(options)
    StudyFolder.new(request.name, options.get("studies"), resume_command)
    request.refuse_unusable()
    _refuse_storage(request.name, request.storage, request.artifacts)
    task = request.open_task()
    from peftsearch.study.create import create_study  # seconds, of importing torch

    return create_study(request, options.get("studies"), resume_command, notify, task)


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
        open_artifacts(artifacts, "").check_access()
