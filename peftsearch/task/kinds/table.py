"""Kinds of task by name."""

from __future__ import annotations

from peftsearch.errors import UsageError, did_you_mean
from peftsearch.task.kinds.base import Kind
from peftsearch.task.kinds.causal import Causal
from peftsearch.task.kinds.classification import Classification
from peftsearch.task.kinds.multilabel import Multilabel
from peftsearch.task.kinds.regression import Regression
from peftsearch.task.kinds.seq2seq import Seq2Seq

__all__ = ["KINDS", "kind_named"]

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (Classification(), Multilabel(), Regression(), Seq2Seq(), Causal())
}


def kind_named(name: str) -> Kind:
    """The kind with this name; UsageError with the nearest name if there is none.

    >>> kind_named("seq2seq").output
    'texts'
    """
    if name not in KINDS:
        raise UsageError(f"kind of task '{name}' unknown{did_you_mean(name, KINDS)}")
    return KINDS[name]
