"""A loaded task: kind, metric, labels and splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from peftsearch.task.kinds.base import Kind
from peftsearch.task.metrics.base import Metric
from peftsearch.task.spec import ReadColumns, TaskSpec
from peftsearch.task.split import Split

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """A task with its training and validation data. Only `test()` reads the test split; no search
    calls it.
    """

    spec: TaskSpec
    """Completed from the table of known data sets where the user left fields open."""
    name: str
    kind: Kind
    metric: Metric
    labels: tuple[str, ...]
    """Names of the labels; none where numbers or texts are predicted."""
    train: Split
    validation: Split
    load_test: Callable[[], Split | None]
    notes: tuple[str, ...] = ()
    rows: int = 0
    """Rows of the training data, before any were left out, set aside or sampled."""
    validation_rows: int | None = None
    """Rows of the validation data; None where these were set aside from the training data."""
    given: tuple[int, int] | None = None
    """Training and validation examples before a subset was taken."""
    reading: ReadColumns = field(default_factory=ReadColumns)
    """Columns that texts are built from."""

    def test(self) -> Split | None:
        """The test split, for final evaluation; None if there is none, or its labels are hidden."""
        return self.load_test()

    @property
    def outputs(self) -> int:
        """Width of the trained head; 0 where texts are written, which needs none."""
        return self.kind.outputs(self.labels)

    @property
    def sizes(self) -> str:
        """`2,000 of 4,952 training and 400 validation examples`."""
        train, validation = len(self.train), len(self.validation)
        given = self.given or (train, validation)
        return (
            f"{_of(train, given[0])} training and {_of(validation, given[1])} validation examples"
        )

    @property
    def worst(self) -> float | None:
        """The metric of a constant predictor on the validation split; None for a loss, whose worst
        is the untuned model's.
        """
        return (
            None
            if self.metric.of == "loss"
            else self.metric.constant_value(self.validation.targets)
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over label names, texts and targets of training and validation."""
        digest = hashlib.sha256("\0".join(self.labels).encode())
        for split in (self.train, self.validation):
            targets = split.targets
            if isinstance(targets, np.ndarray):
                digest.update(targets.tobytes())
                _digest(digest.update, (split.texts, split.pairs or ()))
            else:
                _digest(digest.update, (split.texts, split.pairs or (), targets))
        return digest.hexdigest()[:16]


def _of(used: int, given: int) -> str:
    return f"{used:,}" if used == given else f"{used:,} of {given:,}"


def _digest(update: Callable[[bytes], None], columns: Iterable[Iterable[str]]) -> None:
    for column in columns:
        for text in column:
            update(text.encode("utf-8", "surrogatepass") + b"\0")
