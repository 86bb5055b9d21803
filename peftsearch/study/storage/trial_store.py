"""What is written down of trials, beside what Optuna needs, and where all workers read it.

On one machine that is the study's folder. Where the workers have folders of their own, it is the
database: each worker's folder is a copy, made whole by `database/copies.py`.
"""

from __future__ import annotations

from typing import Any, Protocol

from peftsearch.disk.atomic import write_atomic
from peftsearch.disk.json_records import json_line
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import RungValue, TrialResult
from peftsearch.study.storage.artifacts import Artifacts
from peftsearch.study.storage.trial_table import TrialTable

__all__ = ["DatabaseTrialStore", "FolderTrialStore", "TrialStore", "curve_of"]


class TrialStore(Protocol):
    """Configurations, learning curves, results and checkpoints by trial number."""

    @property
    def hands_on(self) -> bool:
        """Whether files are handed from worker to worker."""

    def write_configuration(self, number: int, configuration: dict[str, Any]) -> None: ...

    def configuration(self, number: int) -> dict[str, Any] | None: ...

    def write_rung(self, number: int, value: RungValue) -> None: ...

    def write_result(self, result: TrialResult) -> None:
        """The trial is finished once this returns, or the block of `TrialTable.at_once`."""

    def result(self, number: int) -> TrialResult | None:
        """None while the trial is unfinished."""

    def progress(self, number: int) -> int | str | None:
        """Differs whenever a trial's checkpoint was written anew; None without one."""

    def give_checkpoint(self, number: int) -> None:
        """Put the checkpoint in this worker's folder where every worker finds it."""

    def give_adapter(self, number: int) -> None:
        """The same of what was tuned, if the trial has come so far."""

    def take_over(self, number: int) -> None:
        """Bring what another worker has done of a trial into this worker's folder."""

    def discard_checkpoint_file(self, number: int) -> None:
        """The checkpoint in this worker's folder, of a trial that ends."""

    def discard_checkpoint(self, number: int) -> None:
        """That, and what other workers were given of it; not under the study's lock."""


class FolderTrialStore:
    """One folder for all workers: nothing needs to be given or taken."""

    hands_on = False

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

    def give_checkpoint(self, number: int) -> None:
        return

    def give_adapter(self, number: int) -> None:
        return

    def take_over(self, number: int) -> None:
        return

    def discard_checkpoint_file(self, number: int) -> None:
        self.folder.trial(number).discard_checkpoint()

    discard_checkpoint = discard_checkpoint_file


class DatabaseTrialStore:
    """Attributes of Optuna's trials, and files in an artifact store if there is one. First the
    database: what stands in this worker's folder alone is known to nobody else.
    """

    def __init__(self, folder: StudyFolder, table: TrialTable, artifacts: Artifacts | None) -> None:
        self.folder, self.table, self.artifacts = folder, table, artifacts

    @property
    def hands_on(self) -> bool:
        return self.artifacts is not None

    def write_configuration(self, number: int, configuration: dict[str, Any]) -> None:
        self.table.set(number, "configuration", configuration)
        self.table.then(lambda: self.folder.trial(number).write_configuration(configuration))

    def configuration(self, number: int) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._attributes(number).get("configuration")
        return found

    def write_rung(self, number: int, value: RungValue) -> None:
        self.table.set(number, f"curve:{value.rung}", value.model_dump(mode="json"))
        self.table.then(lambda: self.folder.trial(number).append_rung(value))

    def write_result(self, result: TrialResult) -> None:
        self.table.set(result.number, "result", result.model_dump(mode="json"))
        self.table.then(lambda: self.folder.trial(result.number).write_result(result))

    def result(self, number: int) -> TrialResult | None:
        found = self._attributes(number).get("result")
        return None if found is None else TrialResult.model_validate(found)

    def progress(self, number: int) -> int | str | None:
        """Without an artifact store others cannot see checkpoints, only the rungs reached."""
        attributes = self._attributes(number)
        held: str | None = attributes.get("checkpoint")
        rungs = sorted(key for key in attributes if key.startswith("curve:"))
        return held or (rungs[-1] if rungs else None)

    def give_checkpoint(self, number: int) -> None:
        path = self.folder.trial(number).checkpoint_path
        if self.artifacts is None or not path.exists():
            return
        before = self._attributes(number).get("checkpoint")
        self.table.set(number, "checkpoint", self.artifacts.put(path))
        if before is not None:
            self.artifacts.remove(before)

    def give_adapter(self, number: int) -> None:
        path = self.folder.trial(number).adapter_path
        if self.artifacts is None or not path.exists():
            return
        if "adapter" not in self._attributes(number):
            self.table.set(number, "adapter", self.artifacts.put(path))

    def take_over(self, number: int) -> None:
        attributes, trial = self._attributes(number), self.folder.trial(number)
        trial.write_configuration(attributes["configuration"])
        curve = curve_of(attributes)
        write_atomic(trial.curve_path, "".join(json_line(value) + "\n" for value in curve))
        held = attributes.get("checkpoint")
        if self.artifacts is not None:
            trial.discard_checkpoint()  # it may be older than the one in the store
            if held is not None:
                self.artifacts.get(held, trial.checkpoint_path)

    def discard_checkpoint_file(self, number: int) -> None:
        self.folder.trial(number).discard_checkpoint()

    def discard_checkpoint(self, number: int) -> None:
        self.discard_checkpoint_file(number)
        if self.artifacts is None:
            return
        held = self._attributes(number).get("checkpoint")
        if held is not None:
            self.artifacts.remove(held)

    def _attributes(self, number: int) -> dict[str, Any]:
        return self.table.get(number).user_attrs


def curve_of(attributes: dict[str, Any]) -> list[RungValue]:
    """A trial's learning curve, by rung."""
    values = [RungValue.model_validate(v) for k, v in attributes.items() if k.startswith("curve:")]
    return sorted(values, key=lambda value: value.rung)
