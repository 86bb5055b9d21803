"""Interfaces of a study's storage, implemented by every back end.

Two modules implement it: `one_machine.py` in the study's folder, `database/` for many machines.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from peftsearch.records.records import RungValue, TrialResult
from peftsearch.study.storage.retry import Retry
from peftsearch.study.storage.trial_table import TrialTable

__all__ = ["Heartbeat", "StudyStorage", "TrialStore"]


class Heartbeat(Protocol):
    """Records and reports which workers are alive, by unique name."""

    @property
    def poll_s(self) -> float:
        """Seconds between two checks; checking more often shows nothing new."""

    def join(self, name: str) -> None:
        """Register as alive, until `leave` or the end of this process."""

    def leave(self) -> None:
        """Deregister."""

    def is_alive(self, name: str) -> bool: ...


class TrialStore(Protocol):
    """Configurations, learning curves, results and checkpoints, by trial number."""

    @property
    def shares_checkpoints(self) -> bool:
        """Whether checkpoints are shared between workers' machines."""

    def write_configuration(self, number: int, configuration: dict[str, Any]) -> None: ...

    def configuration(self, number: int) -> dict[str, Any] | None: ...

    def write_rung(self, number: int, value: RungValue) -> None: ...

    def write_result(self, result: TrialResult) -> None:
        """Finish a trial; done once this returns, or the block of `TrialTable.transaction` it is
        in.
        """

    def result(self, number: int) -> TrialResult | None:
        """A trial's result; None while it is unfinished."""

    def progress(self, number: int) -> int | str | None:
        """A stamp that changes whenever the trial's checkpoint is rewritten; None without one."""

    def publish_checkpoint(self, number: int) -> None:
        """Publish the checkpoint in this worker's folder to all workers."""

    def publish_adapter(self, number: int) -> None:
        """Publish the tuned tensors to all workers, if they exist."""

    def publish_examples(self, number: int) -> None:
        """Publish the metric's statistics of examples to all workers, if they exist."""

    def fetch_files(self, number: int) -> None:
        """Copy another worker's files of a trial to this worker's folder."""

    def discard_checkpoint_file(self, number: int) -> None:
        """Remove the checkpoint of a trial that ends from this worker's folder."""

    def discard_checkpoint(self, number: int) -> None:
        """Remove it there and where other workers find it; not under the study's lock."""


@dataclass(frozen=True)
class StudyStorage:
    """The storage of a study, opened for one worker."""

    table: TrialTable
    lock: AbstractContextManager[Any]
    """The study's lock, held while a decision is made; not reentrant."""
    heartbeat: Heartbeat
    store: TrialStore
    retry: Retry
    close: Callable[[], None]
    """Closes connections to the database, if there is one."""
