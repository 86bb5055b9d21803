"""Finding the live worker of each unfinished trial, without opening the study.

Imports no Optuna for a study in a folder: `status` and `ls` would wait for it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from peftsearch.disk.locks import FileLock
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyInfo
from peftsearch.records.storage_name import is_database
from peftsearch.study.storage.attributes import ALIVE, REQUEUED, WORKER

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = ["live_owners"]

_OWNERS_CHANGE = [f'"user_attr":{{"{one.key}":'.encode() for one in (WORKER, REQUEUED)]
"""Found in the journal's lines that say whose a trial is."""


def live_owners(folder: StudyFolder, info: StudyInfo) -> dict[int, str]:
    """Trial number → worker, for trials that a live worker has; MissingError if the database does
    not answer.
    """
    if is_database(info.storage):
        return _in_database(info)
    alive = {p.name for p in folder.workers_path.glob("*") if FileLock(p).is_held()}
    return _of_living(_journalled(folder), alive) if alive else {}


def _of_living(
    attributes: Iterable[tuple[int, Mapping[str, Any]]], alive: set[str]
) -> dict[int, str]:
    """Live owners by trial, from (number, attributes) in the order of writing; the last wins."""
    owners: dict[int, str] = {}
    for number, of_trial in attributes:
        if WORKER.is_in(of_trial):
            owners[number] = str(WORKER.of(of_trial))
        requeued = REQUEUED.of(of_trial)
        if isinstance(requeued, dict) and not requeued.get("taken"):
            owners.pop(number, None)
    return {number: worker for number, worker in owners.items() if worker in alive}


def _journalled(folder: StudyFolder) -> Iterable[tuple[int, Mapping[str, Any]]]:
    """Lines of the journal about owners, read without Optuna, which would replay all of it."""
    try:
        lines = folder.journal_path.read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        if any(begin in line for begin in _OWNERS_CHANGE):
            with contextlib.suppress(ValueError, KeyError):  # cut off when its writer was killed
                log = json.loads(line)
                yield log["trial_id"], log["user_attr"]


def _in_database(info: StudyInfo) -> dict[int, str]:
    from peftsearch.study.storage.database.address import StorageAddress
    from peftsearch.study.storage.database.connection import READ_LIMIT_S, in_database
    from peftsearch.study.storage.database.registration import registered_study

    address = StorageAddress.of(info.storage)

    def read(storage: BaseStorage) -> tuple[list[FrozenTrial], dict[str, Any]]:
        study_id = registered_study(storage, info.name, address.redacted).study_id
        trials = storage.get_all_trials(study_id, deepcopy=False)
        return trials, storage.get_study_user_attrs(study_id)

    trials, attributes = in_database(address, read, READ_LIMIT_S)
    alive = {name for name, count in ALIVE.each(attributes).items() if isinstance(count, int)}
    return _of_living(((trial.number, trial.user_attrs) for trial in trials), alive)
