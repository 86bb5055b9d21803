"""Opening a study's storage: its folder, or the database named in study.json."""

from __future__ import annotations

from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyInfo
from peftsearch.records.storage_name import is_database
from peftsearch.study.storage.base import Shared
from peftsearch.study.storage.database.heartbeat import Pulse
from peftsearch.study.storage.database.open import open_in_database
from peftsearch.study.storage.one_machine import open_in_folder

__all__ = ["open_shared"]


def open_shared(folder: StudyFolder, info: StudyInfo, pulse: Pulse | None = None) -> Shared:
    """Open the storage of a study; UsageError if its database does not have the study.

    `pulse`: heartbeat timing of a study in a database.
    """
    if is_database(info.storage):
        return open_in_database(folder, info, pulse or Pulse())
    return open_in_folder(folder, info)
