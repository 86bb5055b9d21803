"""Registering a study in a database, and reading it there from another machine."""

from __future__ import annotations

from dataclasses import dataclass

import optuna
from optuna.storages import BaseStorage

from peftsearch.errors import UsageError
from peftsearch.records.records import StudyInfo
from peftsearch.study.storage.attributes import INFO, LOCK, SPACE
from peftsearch.study.storage.trial_table import directions_of

__all__ = ["RegisteredStudy", "register", "registered_study"]


@dataclass(frozen=True)
class RegisteredStudy:
    """A study as registered in its database: all that a new worker needs except the data."""

    info: StudyInfo
    space_text: str
    study_id: int


def register(storage: BaseStorage, info: StudyInfo, space_text: str) -> None:
    """Register a study in its database, unless it is registered. Idempotent."""
    study = optuna.create_study(
        study_name=info.name, storage=storage, directions=directions_of(info), load_if_exists=True
    )
    if not INFO.is_in(study.user_attrs):
        study.set_user_attr(LOCK.key, True)
        study.set_user_attr(SPACE.key, space_text)
        study.set_user_attr(INFO.key, info.model_dump(mode="json"))  # last: now it is whole


def registered_study(storage: BaseStorage, name: str, address: str) -> RegisteredStudy:
    """The study as registered in a database; UsageError if it is not."""
    try:
        study_id = storage.get_study_id_from_name(name)
        attributes = storage.get_study_user_attrs(study_id)
        info = StudyInfo.model_validate(INFO.required(attributes))
    except KeyError:
        raise UsageError(
            f"{address} has no study '{name}'; start it with: peftsearch search --study {name} "
            "--storage … (the address)"
        ) from None
    return RegisteredStudy(info, SPACE.required(attributes), study_id)
