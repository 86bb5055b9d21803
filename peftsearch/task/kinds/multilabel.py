"""Multi-label classification: any number of labels for a text or a pair of texts, or none.

Targets are int8 (n, labels), 1 where a label is one of the example's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from peftsearch.errors import DataError, listed
from peftsearch.task.kinds.base import Kind, Output
from peftsearch.task.kinds.classification import Classification, label_order, label_problem
from peftsearch.task.kinds.label_set_notation import Lists, Notation, is_hidden, notation_of
from peftsearch.task.metrics.table import metrics_for
from peftsearch.task.rows.columns import Columns, filled_rows, left_out, refuse_missing
from peftsearch.task.rows.rows import Rows
from peftsearch.task.split import Split
from peftsearch.wording import counted

__all__ = ["Multilabel"]

_FEWEST = 5
"""Examples of a stratum. One of each is set aside: of smaller ones that would be a large share."""

_Read = tuple[list[Sequence[str]], list[int], list[list[str]], int]


@dataclass(frozen=True)
class Multilabel(Kind):
    """Any number of labels for a text. `notation` is how the sets are written, known once the
    training rows are read; `classes` are the labels' names where lists hold indices into them.
    Targets are 0 and 1, int8 (n, labels).

    >>> cells = {"text": ["a", "b", "c", "d"], "tags": ["war|love", "war", "love", "love"]}
    >>> rows, columns = Rows("d.csv", pd.DataFrame(cells)), Columns(("text",), "tags")
    >>> kind, notes = Multilabel().adapted_to(rows, columns)
    >>> labels = kind.label_names(rows, columns)
    >>> labels, kind.to_split(rows, columns, labels)[0].targets.tolist()
    (('love', 'war'), [[1, 1], [0, 1], [1, 0], [1, 0]])
    """

    notation: Notation | None = None
    classes: tuple[str, ...] | None = None
    name: ClassVar[str] = "multilabel"
    output: ClassVar[Output] = "label sets"
    metrics: ClassVar[tuple[str, ...]] = metrics_for("label sets")
    target_names: ClassVar[tuple[str, ...]] = (
        *Classification.target_names,
        *("tags", "categories", "topics", "genres", "emotions"),
    )

    def adapted_to(self, rows: Rows, columns: Columns) -> tuple[Kind, list[str]]:
        notation = notation_of(rows, columns)
        note = notation.note(str(columns.label))
        classes = rows.classes.get(str(columns.label)) if isinstance(notation, Lists) else None
        kind = replace(self, notation=notation, classes=classes)
        return kind, [f"{rows.name}: {note}"] if note else []

    def label_names(self, rows: Rows, columns: Columns) -> tuple[str, ...]:
        """The names of the columns, or of all classes, in their order; for other lists and texts
        the labels that occur, numbers by value, others by name. DataError unless these occur twice
        each on average.
        """
        notation = self.notation or notation_of(rows, columns)
        if notation.labels or self.classes:
            return notation.labels or self.classes or ()
        _, _, sets, _ = self._read(rows, columns)
        present = {label for own in sets for label in own}
        where = f"{rows.name}: column '{columns.label}' holds"
        if not present:
            raise DataError(f"{where} no label in any row")
        if sum(len(set(own)) for own in sets) < 2 * len(present):
            raise DataError(
                f"{where} labels that occur less than twice each, on average, too few to learn "
                "from; is it the right column?"
            )
        return tuple(sorted(present, key=label_order))

    def to_split(
        self, rows: Rows, columns: Columns, labels: Sequence[str]
    ) -> tuple[Split, list[str]]:
        index = {label: i for i, label in enumerate(labels)}
        texts, kept, sets, hidden = self._read(rows, columns)
        sets, notes = self._by_name(rows, columns, kept, sets, labels)
        targets = np.zeros((len(kept), len(labels)), np.int8)
        for example, (row, own) in enumerate(zip(kept, sets, strict=True)):
            for label in own:
                if label not in index:
                    raise DataError(label_problem(rows.name, rows.numbers[row], label, labels))
                targets[example, index[label]] = 1
        notes += left_out(rows, len(kept) + hidden)
        if hidden:
            notes.append(f"{rows.name}: {counted(hidden, 'row')} with hidden labels (−1) left out")
        filled = [tuple(column[row] for row in kept) for column in texts]
        return Split(filled[0], filled[1] if len(filled) == 2 else None, targets), notes

    def _read(self, rows: Rows, columns: Columns) -> _Read:
        """The text columns, the rows (from 0) with texts and labels, those labels, and how many
        rows have texts but hide their labels.
        """
        notation = self.notation or notation_of(rows, columns)
        refuse_missing(rows, columns.targets)
        texts, filled = filled_rows(rows, columns.text, None)
        cells = [rows.table[name].tolist() for name in columns.targets]
        kept, sets = [], []
        for row in filled:
            try:
                own = notation.read([column[row] for column in cells])
            except ValueError as error:
                problem = f"column '{columns.label}' {error}" if columns.label else str(error)
                where = f"{rows.name}: data row {rows.numbers[row]}"
                raise DataError(f"{where}, {problem}") from error
            if own is not None:
                kept.append(row)
                sets.append(own)
        if not kept:
            raise DataError(f"{rows.name}: every row's labels are hidden (−1)")
        return texts, kept, sets, len(filled) - len(kept)

    def _by_name(
        self,
        rows: Rows,
        columns: Columns,
        kept: Sequence[int],
        sets: list[list[str]],
        labels: Sequence[str],
    ) -> tuple[list[list[str]], list[str]]:
        """The sets with class names in place of indices, and a note where names were matched."""
        own = rows.classes.get(str(columns.label)) if isinstance(self.notation, Lists) else None
        present = {label for one in sets for label in one}
        names = own or self.classes
        are_names = present <= set(labels) or not all(map(str.isdecimal, present))
        by_name = f"labels matched with the training data's by name ({listed(labels, 5)})"
        matched = [f"{rows.name}: {by_name}"]
        if names is None or (own is None and are_names):
            return sets, matched if self.classes and present else []
        if self.classes is None and set(names).isdisjoint(labels):
            note = "labels have names, the training data's none: matched by number"
            return sets, [f"{rows.name}: {note}"]
        for row, one in zip(kept, sets, strict=True):
            for label in one:
                if not label.isdecimal() or int(label) >= len(names):
                    raise DataError(
                        f"{rows.name}: data row {rows.numbers[row]}, column '{columns.label}' "
                        f"holds class {label[:20]}, and there are names for {len(names)}"
                    )
        as_trained = own is None or own == self.classes
        return [[names[int(label)] for label in one] for one in sets], [] if as_trained else matched

    def has_targets(self, rows: Rows, columns: Columns) -> bool:
        """False where the labels of every row are hidden."""
        if not columns.labels or any(name not in rows.table.columns for name in columns.labels):
            return True
        return not rows.table[list(columns.labels)].map(is_hidden).all(axis=None)

    def check(self, split: Split, name: str) -> None:
        targets = np.asarray(split.targets)
        if not targets.any():
            raise DataError(f"{name}: no example has any label: there is nothing to learn")
        if targets.all():
            raise DataError(f"{name}: every example has every label: there is nothing to predict")

    def remarks(self, split: Split, labels: Sequence[str], name: str) -> list[str]:
        """Labels that never occur, or always."""
        counts = np.asarray(split.targets).sum(0, np.int64)
        never = [label for label, count in zip(labels, counts, strict=True) if not count]
        always = [label for label, count in zip(labels, counts, strict=True) if count == len(split)]
        found = {"never occur": never, "are those of every example": always}
        return [
            f"{name}: labels that {what}: {listed(own, 10)}" for what, own in found.items() if own
        ]

    def strata(self, split: Split) -> NDArray[np.int64]:
        """A label of each example, rare ones first, so that these are divided, too; 0 where every
        label is too rare, or there is none. After Sechidis et al. 2011, On the Stratification of
        Multi-label Data.
        """
        has = np.asarray(split.targets) > 0
        strata = np.zeros(len(split), np.int64)
        for label in np.argsort(has.sum(0), kind="stable").tolist():
            left = has[:, label] & (strata == 0)
            if left.sum() >= _FEWEST:
                strata[left] = label + 1
        return strata
