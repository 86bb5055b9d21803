"""Sequence to sequence: a text is written from a text (summaries, translations, …)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from peftsearch.errors import DataError
from peftsearch.task.columns import Columns, filled_rows, text_column
from peftsearch.task.kinds.base import Kind, Output
from peftsearch.task.rows import Rows
from peftsearch.task.text import Split
from peftsearch.wording import counted

__all__ = ["TEXT_METRICS", "TEXT_TARGETS", "Seq2Seq", "written_texts"]

TEXT_METRICS = (
    *("rouge2", "rouge1", "rougeL", "bleu", "chrf", "exact_match", "loss", "perplexity"),
)
TEXT_TARGETS = (
    *("target", "summary", "highlights", "response", "completion", "output", "translation"),
    *("answer", "headline", "title", "label"),
)


class Seq2Seq(Kind):
    """Source → target, for encoder-decoders; a decoder reads the source as a prompt."""

    name = "seq2seq"
    output: ClassVar[Output] = "texts"
    metrics = TEXT_METRICS
    target_names = TEXT_TARGETS

    def to_split(
        self, rows: Rows, columns: Columns, labels: Sequence[str]
    ) -> tuple[Split, list[str]]:
        return written_texts(rows, columns)


def written_texts(rows: Rows, columns: Columns) -> tuple[Split, list[str]]:
    """Sources and the texts to be written; rows where either is empty are left out."""
    if len(columns.text) > 1:
        raise DataError(
            f"{rows.name}: one text column is needed to write from, and {len(columns.text)} are "
            "given; join them into one"
        )
    names = (*columns.text, str(columns.label))
    texts, kept = filled_rows(rows, names, columns.label)
    targets = text_column(rows, str(columns.label))
    empty = len(rows.table) - len(kept)
    notes = [f"{rows.name}: {counted(empty, 'row')} with an empty text left out"] if empty else []
    source = texts[0]
    return (
        Split(tuple(source[row] for row in kept), None, tuple(targets[row] for row in kept)),
        notes,
    )
