"""Reading a study's record, with unfinished trials counted as running or waiting.

A trial is running while a live worker has it; otherwise it waits for `--resume`.
"""

from __future__ import annotations

from dataclasses import replace

from peftsearch.errors import MissingError
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyRecord
from peftsearch.study.storage.owners import live_owners

__all__ = ["read_study"]


def read_study(folder: StudyFolder) -> StudyRecord:
    """The study's record, in which unfinished trials without a live worker count as waiting.

    If the database does not answer, all unfinished trials count as running. A killed worker of a
    database counts as alive until its heartbeat expires.
    """
    record = folder.read()
    if not record.running:
        return record
    try:
        owners = live_owners(folder, record.info)
    except MissingError:
        return record
    running = sum(number in owners for number in folder.unfinished())
    return replace(record, running=running, waiting=record.running - running)
