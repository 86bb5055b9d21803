"""Local copies of a study in a database: one folder on each machine, created and updated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from peftsearch.disk.atomic import write_atomic
from peftsearch.disk.json_records import json_line
from peftsearch.errors import MissingError, UsageError
from peftsearch.records.environment import environment
from peftsearch.records.folder import StudyFolder, study_names
from peftsearch.records.records import StudyInfo, TrialResult
from peftsearch.records.storage_name import is_database
from peftsearch.study.storage.artifacts import open_artifacts
from peftsearch.study.storage.attributes import (
    ADAPTER,
    CONFIGURATION,
    EXAMPLES,
    RESULT,
    TRIALS,
    Attribute,
)
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.connection import READ_LIMIT_S, in_database
from peftsearch.study.storage.database.registration import register, registered_study
from peftsearch.study.storage.database.trial_store import curve_of

__all__ = [
    *("target_of", "register_in_database", "fetch_adapter", "fetch_examples", "update_folder"),
    *("local_folder", "refuse_taken"),
]


def refuse_taken(name: str, address: StorageAddress) -> None:
    """UsageError if a database has a study of this name; MissingError if it cannot be reached."""
    if not in_database(address, lambda storage: _has(storage, name)):
        return
    raise UsageError(
        f"{address.redacted} has a study '{name}' already; join it with: peftsearch worker {name} "
        "--storage … (the address), or start one under another name"
    )


def _has(storage: BaseStorage, name: str) -> bool:
    try:
        storage.get_study_id_from_name(name)
    except KeyError:
        return False
    return True


def register_in_database(folder: StudyFolder) -> None:
    """Register a new study in its database, or finish registering it after a kill.

    UsageError if the database has lost the study: finished trials would be searched again.
    """
    info = folder.read_info()
    if not is_database(info.storage):
        return
    address = StorageAddress.of(info.storage)
    if any(folder.trials_path.iterdir()):
        in_database(address, lambda storage: registered_study(storage, info.name, address.redacted))
    else:
        space = folder.space_path.read_text(encoding="utf-8")
        in_database(address, lambda storage: register(storage, info, space))


def local_folder(name: str, address: StorageAddress, studies: Path | None) -> StudyFolder:
    """This machine's folder of a study in a database, created if it is not there."""
    found = in_database(address, lambda storage: registered_study(storage, name, address.redacted))
    if name not in study_names(studies):
        try:
            return StudyFolder.create(found.info, found.space_text, environment(), studies, "")
        except UsageError:
            if name not in study_names(studies):
                raise
            # Another worker of this machine began at the same moment and was faster.
    folder = StudyFolder.open(name, studies)
    if folder.read_info().id != found.info.id:
        raise UsageError(
            f"{folder.root} holds a different study from '{name}' in {address.redacted}; "
            "name another folder with --studies"
        )
    return folder


def target_of(folder: StudyFolder) -> int | None:
    """The target number of configurations of a study in a database, if one was given."""
    info = folder.read_info()
    address = StorageAddress.of(info.storage)

    def target(storage: BaseStorage) -> int | None:
        study_id = registered_study(storage, info.name, address.redacted).study_id
        return TRIALS.of(storage.get_study_user_attrs(study_id))

    return in_database(address, target)


def update_folder(folder: StudyFolder, notify: Callable[[str], None]) -> None:
    """Update a study's folder from its database; a no-op for a journal.

    If the database cannot be reached, `notify` is called and the folder stays unchanged.
    """
    info = folder.read_info()
    if not is_database(info.storage):
        return
    try:
        for trial in _trials(info):
            _write(folder, trial)
    except MissingError as error:
        notify(f"{error}; showing what this machine's folder has")


def _trials(info: StudyInfo) -> list[FrozenTrial]:
    address = StorageAddress.of(info.storage)

    def trials(storage: BaseStorage) -> list[FrozenTrial]:
        study_id = registered_study(storage, info.name, address.redacted).study_id
        return storage.get_all_trials(study_id, deepcopy=False)

    return in_database(address, trials, READ_LIMIT_S)


def _write(folder: StudyFolder, found: FrozenTrial) -> None:
    attributes, trial = found.user_attrs, folder.trial(found.number)
    configuration, told = CONFIGURATION.of(attributes), RESULT.of(attributes)
    if configuration is not None and not trial.configuration_path.exists():
        trial.write_configuration(configuration)
    if not found.state.is_finished() or told is None:
        return
    result = TrialResult.model_validate(told)
    if trial.read_result() != result:
        curve = curve_of(attributes)
        if curve:
            write_atomic(trial.curve_path, "".join(json_line(value) + "\n" for value in curve))
        trial.write_result(result)


def fetch_adapter(folder: StudyFolder, number: int) -> None:
    """Fetch the tuned tensors of another machine from the study's artifact store, if there."""
    _fetch(folder, number, ADAPTER, folder.trial(number).adapter_path)


def fetch_examples(folder: StudyFolder, number: int) -> None:
    """Fetch the metric's statistics of examples in the same way."""
    _fetch(folder, number, EXAMPLES, folder.trial(number).examples_path)


def _fetch(folder: StudyFolder, number: int, attribute: Attribute[str], path: Path) -> None:
    info = folder.read_info()
    if path.exists() or info.artifacts is None or not is_database(info.storage):
        return
    held = attribute.of(_trials(info)[number].user_attrs)
    if held is not None:
        open_artifacts(info.artifacts, info.id).get(held, path)
