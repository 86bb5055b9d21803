"""`peftsearch worker`: join a search started on this or another machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from peftsearch.api.request import seconds_of
from peftsearch.api.resume import refuse_unusable_settings
from peftsearch.api.storage import apply_storage, use_storage
from peftsearch.cli.options import (
    CohortOf,
    Json,
    StopHours,
    StopMinutes,
    Storage,
    StudiesFolder,
    StudyName,
    Threads,
    Workers,
    bounds,
)

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder

__all__ = ["StopAt", "folder_to_join", "worker"]

StopAt = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        **bounds("trials"),
        help="Stop after this many evaluated configurations (default: the search's).",
    ),
]


def worker(
    study: StudyName,
    storage: Storage = None,
    studies: StudiesFolder = None,
    trials: StopAt = None,
    minutes: StopMinutes = None,
    hours: StopHours = None,
    workers: Workers = None,
    threads: Threads = None,
    cohort: CohortOf = None,
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="cpu, cuda or cuda:N (default: the study's)."),
    ] = None,
    json: Json = False,
) -> None:
    """Join a study: train configurations, and continue trials of workers that died."""
    from peftsearch.backbone.device import refuse_unknown_device
    from peftsearch.cli.watch import watch_local
    from peftsearch.study.missing_files import refuse_missing
    from peftsearch.workers.limits import Limits, WorkerSettings

    limits = Limits(trials, seconds_of(minutes, hours), wait_for_others=True)
    settings = WorkerSettings(threads or 1, cohort, device)
    if device is not None:
        refuse_unknown_device(device)
    folder = folder_to_join(study, storage, studies)
    refuse_unusable_settings(folder, settings)
    refuse_missing(folder.read_info())
    from peftsearch.workers.run import run_workers  # seconds, of importing torch

    watch_local(run_workers, folder, limits, workers, settings, json)


def folder_to_join(study: str, storage: str | None, studies: Path | None) -> StudyFolder:
    """The study's folder on this machine: its own if it has a journal, else a copy."""
    from peftsearch.records.folder import StudyFolder, study_names
    from peftsearch.records.storage_name import is_database
    from peftsearch.study.storage.database.address import StorageAddress
    from peftsearch.study.storage.database.copies import local_folder

    if study in study_names(studies):
        folder = StudyFolder.open(study, studies)
        own = folder.read_info().storage
        apply_storage(study, own, storage)
        if not is_database(own):
            return folder
        storage = storage or own
    if storage is None:
        return StudyFolder.open(study, studies)  # refuses with the nearest name
    use_storage(storage)
    return local_folder(study, StorageAddress.parse(storage), studies)
