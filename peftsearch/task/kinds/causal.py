"""Causal language modelling: a response to a prompt, or texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from peftsearch.task.kinds.base import Kind, Output
from peftsearch.task.kinds.seq2seq import TEXT_TARGETS, written_texts
from peftsearch.task.metrics.table import metrics_for
from peftsearch.task.prompts import joined_texts
from peftsearch.task.rows.columns import Columns, kept_rows, left_out, refuse_missing
from peftsearch.task.rows.rows import Rows
from peftsearch.task.split import Split

__all__ = ["Causal"]


class Causal(Kind):
    """Prompt → response, with the loss on the response alone; without a column of responses, every
    token of the text is one. Targets are texts.

    >>> rows = Rows("d.txt", pd.DataFrame({"text": ["Once upon a time."]}))
    >>> Causal().to_split(rows, Columns(("text",), None), ())[0].targets
    ('Once upon a time.',)
    """

    name = "causal"
    output: ClassVar[Output] = "texts"
    metrics = ("perplexity", *(m for m in metrics_for("texts") if m != "perplexity"))
    target_names = TEXT_TARGETS[:-1]
    needs_target = False

    def to_split(
        self, rows: Rows, columns: Columns, labels: Sequence[str]
    ) -> tuple[Split, list[str]]:
        if columns.label is not None:
            return written_texts(rows, columns)
        refuse_missing(rows, columns.text)
        texts = joined_texts(rows, columns.text, columns.within)
        kept = kept_rows(rows, {columns.text[0]: texts})
        written = tuple(texts[row] for row in kept)
        return Split(("",) * len(kept), None, written), left_out(rows, len(kept))
