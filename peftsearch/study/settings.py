"""Space, training budget and tokenizers of a recorded study."""

from __future__ import annotations

from peftsearch.backbone.loading.language import Tokenizers
from peftsearch.design.budget import TrainingBudget
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyInfo
from peftsearch.records.task_spec import task_of
from peftsearch.space.file.document import Document
from peftsearch.space.space import Space
from peftsearch.task.kinds.table import kind_named

__all__ = ["budget_of", "for_kind", "space_of", "tokenizers_of"]


def space_of(folder: StudyFolder, info: StudyInfo) -> Space:
    """The space, from the study's own copy."""
    return for_kind(Space(Document.read(folder.space_path)), info.kind)


def for_kind(space: Space, kind: str) -> Space:
    """The space without the choice of a head if the task generates texts: none is trained then."""
    return space.without_head() if kind_named(kind).output == "texts" else space


def budget_of(space: Space, info: StudyInfo) -> TrainingBudget:
    """The space's training budget, with the study's own number of rung examples."""
    return space.file.budgets.training_budget(info.rung_examples)


def tokenizers_of(info: StudyInfo) -> Tokenizers:
    """Names or paths of the study's tokenizers."""
    return Tokenizers(info.tokenizer, info.target_tokenizer, task_of(info).languages)
