"""A worker's instructions, sent to a node of a Ray cluster and executed there."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from peftsearch.errors import MissingError
from peftsearch.records.storage_name import VARIABLE
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.copies import folder_of
from peftsearch.workers.events import Event
from peftsearch.workers.launchers.local import Begin, Body, search
from peftsearch.workers.limits import Limits, Means

__all__ = ["Order"]


@dataclass(frozen=True)
class Order:
    """`storage` may contain a password; `studies` is a path on the worker's node."""

    worker: int
    study: str
    storage: str = field(repr=False)
    studies: Path
    limits: Limits
    means: Means
    body: Body = search

    def packed(self) -> bytes:
        return pickle.dumps(self)

    @classmethod
    def unpacked(cls, order: bytes) -> Order:
        unpacked = pickle.loads(order)
        assert isinstance(unpacked, cls)
        return unpacked

    def carry_out(
        self, begin: Begin, emit: Callable[[Event], None], stop: Callable[[], bool]
    ) -> None:
        """Run a worker on the node's copy of the study, created if missing, until no work is left.

        `begin()` returns the search's start in `time.monotonic()` seconds. Raises MissingError if
        the folder of studies cannot be written.
        """
        os.environ[VARIABLE] = self.storage
        try:
            folder = folder_of(self.study, StorageAddress.parse(self.storage), self.studies)
        except OSError as error:
            raise MissingError(
                f"{error.filename or self.studies}: {error.strerror}; name a folder that every "
                "node can write to with --studies"
            ) from error
        self.body(str(folder.root), self.worker, self.limits, begin, self.means, emit, stop)

    def without_password(self, text: str) -> str:
        return StorageAddress.parse(self.storage).without_password(text)
