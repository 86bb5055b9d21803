"""Base class of the kinds of task: target column, reading of rows, and fitting metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from peftsearch.task.rows.columns import Columns
from peftsearch.task.rows.rows import Rows
from peftsearch.task.split import Split, Targets

__all__ = ["Kind", "Output"]

Output = Literal["labels", "label sets", "values", "texts"]


class Kind(ABC):
    """A kind of task. Labels, label sets and values (`output`) come from a trained head, texts from
    the language model's own.
    """

    name: ClassVar[str]
    output: ClassVar[Output]
    metrics: ClassVar[tuple[str, ...]]
    """Names of the metrics that fit, the default first."""
    target_names: ClassVar[tuple[str, ...]]
    """Usual names of a target column, the likeliest first."""
    weak_target_names: ClassVar[tuple[str, ...]] = ()
    """Names of a target column that count only if no column has one of `target_names` and the
    kind was not guessed.
    """
    needs_target: ClassVar[bool] = True

    def adapted_to(self, rows: Rows, columns: Columns) -> tuple[Kind, list[str]]:
        """The kind adapted to the training rows' notation, and notes on that."""
        return self, []

    def label_names(self, rows: Rows, columns: Columns) -> tuple[str, ...]:
        """Names of the labels in the training rows; none where there are no labels."""
        return ()

    @abstractmethod
    def to_split(
        self, rows: Rows, columns: Columns, labels: Sequence[str]
    ) -> tuple[Split, list[str]]:
        """Texts and targets, and notes on rows left out. DataError counts data rows from 1, the
        header not among them.
        """

    def check(self, split: Split, name: str) -> None:  # noqa: B027 (most have nothing to check)
        """DataError if nothing can be learned from a training split."""

    def default_metric(self, targets: Targets) -> tuple[str, list[str]]:
        """The metric of a task that names none, by its training targets, and a note if it is not
        the kind's usual one.
        """
        return self.metrics[0], []

    def has_targets(self, rows: Rows, columns: Columns) -> bool:
        """False where the targets of every row are hidden, as in published test files."""
        return True

    def remarks(self, split: Split, labels: Sequence[str], name: str) -> list[str]:
        """Notes on unusual targets of a split."""
        return []

    def strata(self, split: Split) -> NDArray[np.int64]:
        """A number for each example, `[n]`: splits made here divide the examples of each number in
        the same proportion.
        """
        return np.zeros(len(split), np.int64)

    def outputs(self, labels: Sequence[str]) -> int:
        """Width of the trained head; 0 without one."""
        return {"values": 1, "texts": 0}.get(self.output, len(labels))
