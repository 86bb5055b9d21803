"""Causal language modelling: a response to a prompt, or texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from peftsearch.task.columns import Columns
from peftsearch.task.kinds.base import Kind, Output
from peftsearch.task.kinds.seq2seq import TEXT_METRICS, TEXT_TARGETS, written_texts
from peftsearch.task.rows import Rows
from peftsearch.task.text import Split

__all__ = ["Causal"]


class Causal(Kind):
    """Prompt → response, with the loss on the response alone; without a column of responses, every
    token of the text is one.
    """

    name = "causal"
    output: ClassVar[Output] = "texts"
    metrics = ("perplexity", *(m for m in TEXT_METRICS if m != "perplexity"))
    target_names = TEXT_TARGETS[:-1]
    needs_target = False

    def to_split(
        self, rows: Rows, columns: Columns, labels: Sequence[str]
    ) -> tuple[Split, list[str]]:
        if columns.label is not None:
            return written_texts(rows, columns)
        split, notes = written_texts(rows, replace(columns, label=columns.text[0]))
        return Split(("",) * len(split), None, split.targets), notes
