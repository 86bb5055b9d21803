"""Opening a study's storage: in its folder, or in the database that study.json names."""

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
    """Open what the workers of a study share; UsageError if its database does not have it.

    `pulse`: how a worker of a database shows that it is alive.
    """
    if is_database(info.storage):
        return open_in_database(folder, info, pulse or Pulse())
    return open_in_folder(folder, info)
