"""Checking that a study's model and data files still exist before it is resumed."""

from __future__ import annotations

from peftsearch.backbone.loading.source import refuse_missing_model, refuse_missing_tokenizer
from peftsearch.records.records import StudyInfo
from peftsearch.records.task_spec import task_of
from peftsearch.task.early_checks import refuse_missing_files

__all__ = ["refuse_missing"]


def refuse_missing(info: StudyInfo) -> None:
    """Raise MissingError or DataError if a model folder, tokenizer folder or data file is gone.

    The test file is not checked: no search reads it.
    """
    refuse_missing_model(info.model)
    for name in (info.tokenizer, info.target_tokenizer):
        if name is not None:
            refuse_missing_tokenizer(name)
    spec = task_of(info)
    refuse_missing_files(spec.train, spec.eval)
