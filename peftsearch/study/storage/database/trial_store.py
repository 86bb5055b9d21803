"""Trials in a database: attributes of Optuna's trials, and files in an artifact store.

Each worker's folder is a copy of them, made whole by `copies.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peftsearch.disk.atomic import write_atomic
from peftsearch.disk.json_records import json_line
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import RungValue, TrialResult
from peftsearch.study.storage.artifacts import Artifacts
from peftsearch.study.storage.attributes import (
    ADAPTER,
    CHECKPOINT,
    CONFIGURATION,
    CURVE,
    EXAMPLES,
    RESULT,
    Attribute,
)
from peftsearch.study.storage.trial_table import TrialTable

__all__ = ["DatabaseTrialStore", "curve_of"]


class DatabaseTrialStore:
    """Writes to the database first: other workers do not see this worker's folder. Without an
    artifact store, checkpoints stay with the worker that wrote them."""

    def __init__(self, folder: StudyFolder, table: TrialTable, artifacts: Artifacts | None) -> None:
        self.folder, self.table, self.artifacts = folder, table, artifacts

    @property
    def shares_checkpoints(self) -> bool:
        return self.artifacts is not None

    def write_configuration(self, number: int, configuration: dict[str, Any]) -> None:
        self.table.set(number, CONFIGURATION, configuration)
        self.table.on_commit(lambda: self.folder.trial(number).write_configuration(configuration))

    def configuration(self, number: int) -> dict[str, Any] | None:
        return CONFIGURATION.of(self._attributes(number))

    def write_rung(self, number: int, value: RungValue) -> None:
        self.table.set(number, CURVE.at(value.rung), value.model_dump(mode="json"))
        self.table.on_commit(lambda: self.folder.trial(number).append_rung(value))

    def write_result(self, result: TrialResult) -> None:
        self.table.set(result.number, RESULT, result.model_dump(mode="json"))
        self.table.on_commit(lambda: self.folder.trial(result.number).write_result(result))

    def result(self, number: int) -> TrialResult | None:
        found = RESULT.of(self._attributes(number))
        return None if found is None else TrialResult.model_validate(found)

    def progress(self, number: int) -> int | str | None:
        """The checkpoint's name; without an artifact store, others only see the last rung."""
        attributes = self._attributes(number)
        rungs = sorted(CURVE.each(attributes))
        reached = CURVE.at(rungs[-1]).key if rungs else None
        return CHECKPOINT.of(attributes) or reached

    def publish_checkpoint(self, number: int) -> None:
        path = self.folder.trial(number).checkpoint_path
        if self.artifacts is None or not path.exists():
            return
        before = CHECKPOINT.of(self._attributes(number))
        self.table.set(number, CHECKPOINT, self.artifacts.put(path))
        if before is not None:
            self.artifacts.remove(before)

    def publish_adapter(self, number: int) -> None:
        self._publish(number, ADAPTER, self.folder.trial(number).adapter_path)

    def publish_examples(self, number: int) -> None:
        self._publish(number, EXAMPLES, self.folder.trial(number).examples_path)

    def _publish(self, number: int, attribute: Attribute[str], path: Path) -> None:
        """Store a file, if there is one that was not stored before."""
        if self.artifacts is None or not path.exists():
            return
        if not attribute.is_in(self._attributes(number)):
            self.table.set(number, attribute, self.artifacts.put(path))

    def fetch_files(self, number: int) -> None:
        attributes, trial = self._attributes(number), self.folder.trial(number)
        trial.write_configuration(CONFIGURATION.required(attributes))
        curve = curve_of(attributes)
        write_atomic(trial.curve_path, "".join(json_line(value) + "\n" for value in curve))
        held = CHECKPOINT.of(attributes)
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
        held = CHECKPOINT.of(self._attributes(number))
        if held is not None:
            self.artifacts.remove(held)

    def _attributes(self, number: int) -> dict[str, Any]:
        return self.table.get(number).user_attrs


def curve_of(attributes: dict[str, Any]) -> list[RungValue]:
    """A trial's learning curve, by rung."""
    values = [RungValue.model_validate(value) for value in CURVE.each(attributes).values()]
    return sorted(values, key=lambda value: value.rung)
