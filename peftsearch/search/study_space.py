"""What of a study follows from its record: its space, its training budget, its tokenizers."""

from __future__ import annotations

from dataclasses import replace

from peftsearch.backbone.language import Tokenizers
from peftsearch.search.folder import StudyFolder
from peftsearch.search.records import StudyInfo
from peftsearch.search.study_task import task_of
from peftsearch.search.workbench import training_budget
from peftsearch.space.document import Document
from peftsearch.space.space import Space
from peftsearch.task.kind import kind_named
from peftsearch.training.budget import TrainingBudget

__all__ = ["budget_of", "for_kind", "space_of", "tokenizers_of"]


def space_of(folder: StudyFolder, info: StudyInfo) -> Space:
    """The study's own copy of its space."""
    return for_kind(Space(Document.read(folder.space_path)), info.kind)


def for_kind(space: Space, kind: str) -> Space:
    """A space without the choice of a head where texts are written: none is trained then."""
    return space.without_head() if kind_named(kind).output == "texts" else space


def budget_of(space: Space, info: StudyInfo) -> TrainingBudget:
    """How long trials train, with what the user said about evaluating them."""
    budget = training_budget(space.file.budgets)
    if info.rung_examples is None:
        return budget
    return replace(budget, rung_examples=info.rung_examples)


def tokenizers_of(info: StudyInfo) -> Tokenizers:
    """Where a study's tokenizers are."""
    return Tokenizers(info.tokenizer, info.target_tokenizer, task_of(info).languages)
