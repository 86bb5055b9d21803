"""A worker's job: study, limits and settings, sent to a node of a Ray cluster and run there."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from peftsearch.errors import MissingError
from peftsearch.records.storage_name import VARIABLE
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.copies import local_folder
from peftsearch.workers.events import Event
from peftsearch.workers.launchers.local import StartClock, WorkerMain, run_worker
from peftsearch.workers.limits import Limits, WorkerSettings

__all__ = ["WorkerJob"]


@dataclass(frozen=True)
class WorkerJob:
    """One worker to run. `storage` may contain a password; `studies` is a path on its node."""

    worker: int
    study: str
    storage: str = field(repr=False)
    studies: Path
    limits: Limits
    settings: WorkerSettings
    main: WorkerMain = run_worker

    def to_bytes(self) -> bytes:
        return pickle.dumps(self)

    @classmethod
    def from_bytes(cls, content: bytes) -> WorkerJob:
        job = pickle.loads(content)
        assert isinstance(job, cls)
        return job

    def run(
        self, start_clock: StartClock, emit: Callable[[Event], None], stop: Callable[[], bool]
    ) -> None:
        """Run a worker on the node's copy of the study, created if missing, until no work is left.

        `start_clock()` returns the search's start in `time.monotonic()` seconds. Raises
        MissingError if the folder of studies cannot be written.
        """
        os.environ[VARIABLE] = self.storage
        try:
            folder = local_folder(self.study, StorageAddress.parse(self.storage), self.studies)
        except OSError as error:
            raise MissingError(
                f"{error.filename or self.studies}: {error.strerror}; name a folder that every "
                "node can write to with --studies"
            ) from error
        self.main(
            str(folder.root), self.worker, self.limits, start_clock, self.settings, emit, stop
        )

    def without_password(self, text: str) -> str:
        return StorageAddress.parse(self.storage).without_password(text)
