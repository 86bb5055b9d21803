"""Storage of a study on one machine: Optuna's journal, file locks and the study's folder."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import optuna

from peftsearch.disk.locks import FileLock
from peftsearch.errors import MissingError
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import RungValue, StudyInfo, TrialResult
from peftsearch.study.storage.base import StudyStorage
from peftsearch.study.storage.journal import open_journal
from peftsearch.study.storage.retry import Retry
from peftsearch.study.storage.trial_table import (
    TrialTable,
    directions_of,
    refuse_other_directions,
)

__all__ = ["FolderTrialStore", "LockHeartbeat", "open_in_folder"]


def open_in_folder(folder: StudyFolder, info: StudyInfo) -> StudyStorage:
    """Open the storage of a study on one machine; creates the study if the journal is empty."""
    lock = FileLock(folder.root / "ask.lock")
    with lock:
        study = optuna.create_study(
            study_name=info.name,
            storage=open_journal(folder.journal_path),
            directions=directions_of(info),
            load_if_exists=True,
        )
    refuse_other_directions(study, info, str(folder.journal_path))
    return StudyStorage(
        table=TrialTable(study),
        lock=lock,
        heartbeat=LockHeartbeat(folder.workers_path),
        store=FolderTrialStore(folder),
        retry=Retry(info.storage),
        close=lambda: None,
    )


class LockHeartbeat:
    """A heartbeat in which each live worker holds a file lock, which the kernel frees on exit."""

    poll_s = 1.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: FileLock | None = None
        self._name: str | None = None

    def join(self, name: str) -> None:
        self.folder.mkdir(exist_ok=True)
        for path in list(self.folder.iterdir()):
            with contextlib.suppress(MissingError):  # another user's, in a study that is shared
                self.is_alive(path.name)  # files of dead workers go
        lock = FileLock(self.folder / name, f"worker {name} is alive")
        lock.acquire(timeout_s=5.0)
        self._lock, self._name = lock, name

    def leave(self) -> None:
        if self._lock is not None:
            self._lock.path.unlink(missing_ok=True)
            self._lock.release()
        self._lock = self._name = None

    def is_alive(self, name: str) -> bool:
        path = self.folder / name
        if name == self._name:
            return True
        lock = FileLock(path)
        if lock.is_held():
            return True
        if path.exists() and lock.try_acquire():  # no worker may join under this name now
            path.unlink(missing_ok=True)
            lock.release()
        return False


class FolderTrialStore:
    """Trials in one folder shared by all workers, so no files need to be copied."""

    shares_checkpoints = False

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder

    def write_configuration(self, number: int, configuration: dict[str, Any]) -> None:
        self.folder.trial(number).write_configuration(configuration)

    def configuration(self, number: int) -> dict[str, Any] | None:
        return self.folder.trial(number).read_configuration_if_any()

    def write_rung(self, number: int, value: RungValue) -> None:
        self.folder.trial(number).append_rung(value)

    def write_result(self, result: TrialResult) -> None:
        self.folder.trial(result.number).write_result(result)

    def result(self, number: int) -> TrialResult | None:
        return self.folder.trial(number).read_result()

    def progress(self, number: int) -> int | str | None:
        return self.folder.trial(number).checkpoint_stamp()

    def publish_checkpoint(self, number: int) -> None:
        return

    def publish_adapter(self, number: int) -> None:
        return

    def publish_examples(self, number: int) -> None:
        return

    def fetch_files(self, number: int) -> None:
        return

    def discard_checkpoint_file(self, number: int) -> None:
        self.folder.trial(number).discard_checkpoint()

    discard_checkpoint = discard_checkpoint_file
