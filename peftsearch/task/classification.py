"""Text classification, single texts or pairs: splits, labels and metric."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from peftsearch.task.metric import METRICS, Metric
from peftsearch.task.spec import TaskSpec
from peftsearch.task.text import Split

__all__ = ["ClassificationTask"]


@dataclass(frozen=True)
class ClassificationTask:
    """What a search sees of a task. Only `test()` reads the test split; no search calls it."""

    spec: TaskSpec
    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    load_test: Callable[[], Split | None]
    notes: tuple[str, ...] = ()
    metric: Metric = METRICS["accuracy"]

    def test(self) -> Split | None:
        """The test split, None if the task has none. Opening it is for the very end."""
        return self.load_test()

    @property
    def worst(self) -> float:
        """The metric of a constant predictor on the validation split."""
        return self.metric.constant_value(self.validation.labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over label names, texts and labels of training and validation."""
        digest = hashlib.sha256("\0".join(self.labels).encode())
        for split in (self.train, self.validation):
            digest.update(split.labels.tobytes())
            for text in (*split.texts, *(split.pairs or ())):
                digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()[:16]
