"""Opening a task's data after early validation; imports pandas only when called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftsearch.task.spec import TaskSpec

if TYPE_CHECKING:
    from peftsearch.task.task import Task

__all__ = ["open_task"]


def open_task(spec: TaskSpec) -> Task:
    """The task with its data, checked as early as possible; the test split stays closed.

    UsageError for settings that do not fit, DataError for files that are missing or unreadable,
    MissingError for a package or data set that is not there.
    """
    from peftsearch.task.early_checks import refuse_early  # with pandas: a third of a second
    from peftsearch.task.sources.load import load_task

    refuse_early(spec)
    task = load_task(spec)
    task.metric.refuse_if_missing()
    return task
