"""One trial's folder: `configuration.json`, `curve.jsonl`, `result.json`, log, tensors.

A folder without result.json is a trial that runs or was cut off.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peftsearch.disk.atomic import append_line, write_atomic
from peftsearch.disk.json_records import (
    json_line,
    json_text,
    parse_record,
    read_json,
    read_record,
)
from peftsearch.errors import UsageError
from peftsearch.records.records import RungValue, TrialResult

__all__ = ["TrialFolder"]

_UNFINISHED = "restore it, or move it away: the trial then counts as unfinished"


@dataclass(frozen=True)
class TrialFolder:
    """The files of trial `number` in `root` (`studies/NAME/trials/00028`), made when written to."""

    root: Path
    number: int

    @property
    def configuration_path(self) -> Path:
        return self.root / "configuration.json"

    @property
    def curve_path(self) -> Path:
        return self.root / "curve.jsonl"

    @property
    def result_path(self) -> Path:
        return self.root / "result.json"

    @property
    def log_path(self) -> Path:
        return self.root / "log.txt"

    @property
    def adapter_path(self) -> Path:
        """The tuned tensors and head of a finished trial."""
        return self.root / "adapter.safetensors"

    @property
    def examples_path(self) -> Path:
        """The metric's statistics of every validation example, at full length."""
        return self.root / "examples.npz"

    @property
    def checkpoint_path(self) -> Path:
        """The state that an unfinished trial continues from."""
        return self.root / "checkpoint.safetensors"

    @property
    def samples_path(self) -> Path:
        """A few texts generated in the last evaluation, shown in the report."""
        return self.root / "samples.json"

    def write_samples(self, samples: Sequence[Mapping[str, str]]) -> None:
        """Write texts with reference and prediction, if the task generates texts."""
        if samples:
            write_atomic(self.samples_path, json_text(list(samples)))

    def write_configuration(self, configuration: Mapping[str, Any]) -> None:
        """Write `Configuration.to_json()`, before anything is trained."""
        self._make()
        write_atomic(self.configuration_path, json_text(dict(configuration)))

    def read_configuration(self) -> dict[str, Any]:
        """Read the configuration; UsageError if it is missing or damaged."""
        configuration = self.read_configuration_if_any()
        if configuration is None:
            raise UsageError(f"{self.configuration_path}: missing; restore it from a copy")
        return configuration

    def read_configuration_if_any(self) -> dict[str, Any] | None:
        return read_json(self.configuration_path, "restore it from a copy")

    def append_rung(self, value: RungValue) -> None:
        """Append a point to the learning curve, on disk before this returns."""
        self._make()
        append_line(self.curve_path, json_line(value))

    def read_curve(self) -> tuple[RungValue, ...]:
        """The learning curve, by rung; the last value of a rung that was evaluated twice.

        An incomplete last line is left out.
        """
        try:
            complete = self.curve_path.read_bytes().split(b"\n")[:-1]
        except (FileNotFoundError, NotADirectoryError):
            return ()
        by_rung = {}
        for line, text in enumerate(complete, start=1):
            where = f"{self.curve_path}:{line}"
            value = parse_record(text, RungValue, where, "delete this line")
            by_rung[value.rung] = value
        return tuple(by_rung[rung] for rung in sorted(by_rung))

    def keep_rungs_up_to(self, step: int) -> None:
        """Drop the points of the curve after `step`, which are about to be trained again."""
        curve = self.read_curve()
        kept = [value for value in curve if value.step <= step]
        if len(kept) < len(curve):
            write_atomic(self.curve_path, "".join(json_line(value) + "\n" for value in kept))

    def write_result(self, result: TrialResult) -> None:
        """Write result.json; the trial is finished once it is there."""
        if result.number != self.number:
            raise ValueError(f"the result of trial {result.number} in {self.root}")
        self._make()
        write_atomic(self.result_path, json_text(result))

    def read_result(self) -> TrialResult | None:
        """The result, None while unfinished; UsageError if it is damaged or another trial's."""
        result = read_record(self.result_path, TrialResult, _UNFINISHED)
        if result is not None and result.number != self.number:
            raise UsageError(
                f"{self.result_path}: number: it is trial {result.number}'s; {_UNFINISHED}"
            )
        return result

    def checkpoint_stamp(self) -> int | None:
        """A stamp that changes whenever the checkpoint is rewritten; None without one."""
        try:
            return self.checkpoint_path.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None

    def discard_checkpoint(self) -> None:
        self.checkpoint_path.unlink(missing_ok=True)

    def log(self, message: str) -> None:
        """Append a line with the time to log.txt; errors are ignored."""
        try:
            self._make()
            with open(self.log_path, "a", encoding="utf-8") as file:
                file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {message}\n")
        except OSError:
            return

    def _make(self) -> None:
        os.makedirs(self.root, exist_ok=True)
