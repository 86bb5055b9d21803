"""What all workers of a study share: Optuna's storage, a lock, who is alive, what is written down.

On one machine these are the journal and file locks in the study's folder; on many, a database.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from peftsearch.disk.locks import FileLock
from peftsearch.errors import UsageError
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyInfo
from peftsearch.study.storage.artifacts import Artifacts, open_artifacts
from peftsearch.study.storage.connection import (
    StorageAddress,
    close_storage,
    is_database,
    open_database,
    open_storage,
)
from peftsearch.study.storage.database.row_lock import LOCK_KEY, RowLock
from peftsearch.study.storage.heartbeat import CountingHeartbeat, Heartbeat, LockHeartbeat, Pulse
from peftsearch.study.storage.retry import Retry
from peftsearch.study.storage.trial_store import DatabaseTrialStore, FolderTrialStore, TrialStore
from peftsearch.study.storage.trial_table import TrialTable

__all__ = ["Enrolled", "Shared", "enrol", "enrolled", "open_shared"]


@dataclass(frozen=True)
class Shared:
    """`lock` is held while anything is decided; it is not to be taken twice."""

    table: TrialTable
    lock: AbstractContextManager[Any]
    heartbeat: Heartbeat
    store: TrialStore
    retry: Retry


@dataclass(frozen=True)
class Enrolled:
    """A study as its database knows it: all that a new worker needs beside the data."""

    info: StudyInfo
    space_text: str
    study_id: int


def open_shared(folder: StudyFolder, info: StudyInfo, pulse: Pulse | None = None) -> Shared:
    """Open what the workers of a study share; UsageError if its database does not have it."""
    if is_database(info.storage):
        return _in_database(folder, info, pulse or Pulse())
    return _in_folder(folder, info)


def _in_folder(folder: StudyFolder, info: StudyInfo) -> Shared:
    lock = FileLock(folder.root / "ask.lock")
    with lock:
        study = optuna.create_study(
            study_name=info.name,
            storage=open_storage(info.storage, folder.journal_path),
            directions=_directions(info),
            load_if_exists=True,
        )
    _refuse_other_directions(study, info, str(folder.journal_path))
    return Shared(
        table=TrialTable(study),
        lock=lock,
        heartbeat=LockHeartbeat(folder.workers_path),
        store=FolderTrialStore(folder),
        retry=Retry(info.storage),
    )


def _in_database(folder: StudyFolder, info: StudyInfo, pulse: Pulse) -> Shared:
    address = StorageAddress.of(info.storage)
    storage = open_database(address)
    retry = Retry(
        address.shown, between=lambda: close_storage(storage), hide=address.without_password
    )
    known = retry.call(lambda: enrolled(storage, info.name, address.shown))
    if known.info.id != info.id:
        raise UsageError(
            f"{address.shown} has another study named '{info.name}'; begin a new study under "
            "another name"
        )
    study = retry.call(lambda: optuna.load_study(study_name=info.name, storage=storage))
    retry.call(lambda: _refuse_other_directions(study, info, address.shown))
    table = TrialTable(study, storage)
    return Shared(
        table=table,
        lock=RowLock(storage.engine, known.study_id),
        heartbeat=CountingHeartbeat(storage, known.study_id, pulse),
        store=DatabaseTrialStore(folder, table, _artifacts(info)),
        retry=retry,
    )


def _artifacts(info: StudyInfo) -> Artifacts | None:
    if info.artifacts is None:
        return None
    artifacts = open_artifacts(info.artifacts, info.id)
    artifacts.try_out()  # before the first checkpoint of a trial is lost on it
    return artifacts


def _directions(info: StudyInfo) -> list[StudyDirection]:
    metric = StudyDirection.MAXIMIZE if info.metric.maximise else StudyDirection.MINIMIZE
    return [metric, StudyDirection.MINIMIZE]


def _refuse_other_directions(study: optuna.Study, info: StudyInfo, where: str) -> None:
    """A damaged record, whose study would take no result."""
    if study.directions != _directions(info):
        found = ", ".join(direction.name.lower() for direction in study.directions)
        raise UsageError(
            f"{where}: damaged: study '{info.name}' is to {found} there, and not what its "
            "study.json says; restore it from a copy; what is in trials/ is safe, and can be "
            "exported"
        )


def enrol(storage: BaseStorage, info: StudyInfo, space_text: str) -> None:
    """Make a study known to its database; nothing happens if it is. May be done twice."""
    study = optuna.create_study(
        study_name=info.name, storage=storage, directions=_directions(info), load_if_exists=True
    )
    if "info" not in study.user_attrs:
        study.set_user_attr(LOCK_KEY, True)
        study.set_user_attr("space", space_text)
        study.set_user_attr("info", info.model_dump(mode="json"))  # last: now it is whole


def enrolled(storage: BaseStorage, name: str, shown: str) -> Enrolled:
    """A study that a database knows; UsageError if it does not. `shown` is the database."""
    try:
        study_id = storage.get_study_id_from_name(name)
        attributes = storage.get_study_user_attrs(study_id)
        info = StudyInfo.model_validate(attributes["info"])
    except KeyError:
        raise UsageError(
            f"{shown} has no study '{name}'; begin it with: peftsearch search --study {name} "
            "--storage … (the address)"
        ) from None
    return Enrolled(info, attributes["space"], study_id)
