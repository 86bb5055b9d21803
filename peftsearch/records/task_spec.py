"""Parsing the task of a study from study.json."""

from __future__ import annotations

from pydantic import ValidationError

from peftsearch.errors import UsageError
from peftsearch.records.records import StudyInfo
from peftsearch.task.spec import TaskSpec
from peftsearch.wording import first_problem

__all__ = ["task_of"]


def task_of(info: StudyInfo) -> TaskSpec:
    """The task as the user described it; UsageError if that part of study.json is damaged."""
    try:
        return TaskSpec.of_file(info.task)
    except ValidationError as error:
        problem = first_problem(error).within("task")
        raise UsageError(
            f"study.json of study '{info.name}': {problem}; restore it from a copy"
        ) from error
