"""Opening a study's storage: its folder, or the database named in study.json."""

from __future__ import annotations

from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyInfo
from peftsearch.records.storage_name import is_database
from peftsearch.study.storage.base import StudyStorage
from peftsearch.study.storage.database.heartbeat import HeartbeatTiming
from peftsearch.study.storage.database.open import open_in_database
from peftsearch.study.storage.one_machine import open_in_folder

__all__ = ["open_storage"]


def open_storage(
    folder: StudyFolder, info: StudyInfo, timing: HeartbeatTiming | None = None
) -> StudyStorage:
    """Open the storage of a study; UsageError if its database does not have the study.

    `timing`: heartbeat timing of a study in a database.
    """
    if is_database(info.storage):
        return open_in_database(folder, info, timing or HeartbeatTiming())
    return open_in_folder(folder, info)
