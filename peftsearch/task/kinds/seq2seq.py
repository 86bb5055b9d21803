"""Sequence to sequence: generating a text from a text (summaries, translations, …)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd

from peftsearch.task.kinds.base import Kind, Output
from peftsearch.task.metrics.table import metrics_for
from peftsearch.task.prompts import joined_texts
from peftsearch.task.rows.columns import Columns, kept_rows, left_out, refuse_missing, text_column
from peftsearch.task.rows.rows import Rows
from peftsearch.task.split import Split, Targets

__all__ = ["TEXT_TARGETS", "Seq2Seq", "written_texts"]

TEXT_TARGETS = (
    *("target", "summary", "highlights", "response", "completion", "output", "translation"),
    *("answer", "headline", "title", "label"),
)


_ROUGE_WORD = re.compile(r"[a-z0-9]+")
"""A word to rouge-score, which scores nothing but ASCII letters and digits."""
_MEASURED = 10_000
"""Most targets that the default metric is chosen from."""


class Seq2Seq(Kind):
    """Source → target, for encoder-decoders; a decoder reads the source as a prompt. Targets are
    texts.

    >>> rows = Rows("d.csv", pd.DataFrame({"text": ["One cat."], "target": ["Un chat."]}))
    >>> Seq2Seq().to_split(rows, Columns(("text",), "target"), ())[0].targets
    ('Un chat.',)
    """

    name = "seq2seq"
    output: ClassVar[Output] = "texts"
    metrics = metrics_for("texts")
    target_names = TEXT_TARGETS

    def to_split(
        self, rows: Rows, columns: Columns, labels: Sequence[str]
    ) -> tuple[Split, list[str]]:
        return written_texts(rows, columns)

    def default_metric(self, targets: Targets) -> tuple[str, list[str]]:
        """ROUGE-2, unless it is 0 for most targets, which have no two words: then exact match where
        they are single words, and chrF where they are in another script.
        """
        # Every k-th target, not the first ones: data may be sorted.
        texts = [str(text) for text in targets[:: max(1, len(targets) // _MEASURED)]]
        found = Counter(map(_metric_for, texts))
        if 2 * found["rouge2"] >= len(texts):
            return "rouge2", []
        if found["exact_match"] >= found["chrf"]:
            return "exact_match", [_chosen("exact_match", "one word")]
        return "chrf", [_chosen("chrf", "in a script that ROUGE does not read")]


def _metric_for(target: str) -> str:
    words = len(_ROUGE_WORD.findall(target.lower()))
    if words > 1:
        return "rouge2"
    return "exact_match" if words == 1 and target.isascii() else "chrf"


def _chosen(metric: str, why: str) -> str:
    return f"metric: {metric}, as most targets are {why}: rouge2 would be 0 (set it with --metric)"


def written_texts(rows: Rows, columns: Columns) -> tuple[Split, list[str]]:
    """Source and target texts; rows where either is empty are left out."""
    label = str(columns.label)
    refuse_missing(rows, (*columns.text, label))
    sources = joined_texts(rows, columns.text, columns.within)
    targets, notes = _targets(rows, label)
    kept = kept_rows(rows, {columns.text[0]: sources, label: targets})
    split = Split(tuple(sources[row] for row in kept), None, tuple(targets[row] for row in kept))
    return split, [*notes, *left_out(rows, len(kept))]


def _targets(rows: Rows, label: str) -> tuple[list[str], list[str]]:
    """The target texts; of a list of them (SQuAD's answers) the first, with a note."""
    cells = rows.table[label].tolist()
    if not any(isinstance(cell, (list, np.ndarray)) for cell in cells):
        return text_column(rows, label), []
    first = [
        next(iter(cell), None) if isinstance(cell, (list, np.ndarray)) else cell for cell in cells
    ]
    alone = replace(
        rows, table=rows.table.assign(**{label: pd.Series(first, rows.table.index, dtype=object)})
    )
    return text_column(alone, label), [f"{rows.name}: of each list in '{label}' the first text"]
