"""A task from what the user asked for: a demo, local files, or a Hub name."""

from __future__ import annotations

from peftsearch.errors import UsageError
from peftsearch.task.assemble import assemble
from peftsearch.task.demo import load_demo
from peftsearch.task.files import read_rows
from peftsearch.task.hub import load_hub
from peftsearch.task.rows import Rows
from peftsearch.task.spec import TaskSpec
from peftsearch.task.task import Task

__all__ = ["load_task"]


def load_task(spec: TaskSpec) -> Task:
    """Read training and validation data; the test split stays closed."""
    if spec.name is not None and (spec.train or spec.eval or spec.test):
        raise UsageError("give either --task or local files (--train, --eval, --test), not both")
    if spec.name is not None:
        return load_demo(spec) if spec.name.startswith("demo:") else load_hub(spec)
    if spec.train is None and (spec.eval or spec.test):
        raise UsageError("no training data: give --train FILE beside --eval and --test")
    if spec.train is None:
        raise UsageError(
            "no data: give --task demo:tweets, --task owner/dataset:config, "
            "or --train FILE with --text and --label"
        )
    test = spec.test

    def read_test() -> Rows | None:
        return read_rows(test) if test else None

    train = read_rows(spec.train)
    validation = read_rows(spec.eval) if spec.eval else None
    return assemble(spec, train.name, train, validation, read_test if test else None)
