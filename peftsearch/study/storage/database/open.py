"""Opening a study's storage in a database, for a worker on any machine."""

from __future__ import annotations

import optuna

from peftsearch.errors import UsageError
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyInfo
from peftsearch.study.storage.artifacts import Artifacts, open_artifacts
from peftsearch.study.storage.base import StudyStorage
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.connection import close_storage, open_database
from peftsearch.study.storage.database.heartbeat import CountingHeartbeat, HeartbeatTiming
from peftsearch.study.storage.database.registration import registered_study
from peftsearch.study.storage.database.row_lock import RowLock
from peftsearch.study.storage.database.trial_store import DatabaseTrialStore
from peftsearch.study.storage.retry import Retry
from peftsearch.study.storage.trial_table import TrialTable, refuse_other_directions

__all__ = ["open_in_database"]


def open_in_database(folder: StudyFolder, info: StudyInfo, timing: HeartbeatTiming) -> StudyStorage:
    """Open the storage of a study; UsageError if the database does not have the study, or has a
    different one of that name. `folder` is this machine's copy.
    """
    address = StorageAddress.of(info.storage)
    storage = open_database(address)
    retry = Retry(
        address.redacted, between=lambda: close_storage(storage), hide=address.without_password
    )
    known = retry.call(lambda: registered_study(storage, info.name, address.redacted))
    if known.info.id != info.id:
        raise UsageError(
            f"{address.redacted} has another study named '{info.name}'; start a new study under "
            "another name"
        )
    study = retry.call(lambda: optuna.load_study(study_name=info.name, storage=storage))
    retry.call(lambda: refuse_other_directions(study, info, address.redacted))
    table = TrialTable(study, storage)
    return StudyStorage(
        table=table,
        lock=RowLock(storage.engine, known.study_id),
        heartbeat=CountingHeartbeat(storage, known.study_id, timing),
        store=DatabaseTrialStore(folder, table, _artifacts(info)),
        retry=retry,
        close=lambda: close_storage(storage),
    )


def _artifacts(info: StudyInfo) -> Artifacts | None:
    if info.artifacts is None:
        return None
    artifacts = open_artifacts(info.artifacts, info.id)
    artifacts.check_access()  # before the first checkpoint of a trial is lost on it
    return artifacts
