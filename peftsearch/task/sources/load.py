"""Loading a task from a demo, local files, or a Hub name."""

from __future__ import annotations

from dataclasses import dataclass, replace

from peftsearch.errors import DataError, UsageError
from peftsearch.task.guess_kind import labels_in
from peftsearch.task.rows.files import read_rows
from peftsearch.task.rows.folders import splits_in
from peftsearch.task.rows.parallel import parallel_paths
from peftsearch.task.rows.rows import Rows
from peftsearch.task.sources.assemble import assemble
from peftsearch.task.sources.class_names import without_hidden
from peftsearch.task.sources.demo import load_demo
from peftsearch.task.sources.splitting import VALIDATION
from peftsearch.task.spec import TaskSpec
from peftsearch.task.task import Task

__all__ = ["load_task"]


def load_task(spec: TaskSpec) -> Task:
    """Read training and validation data; the test split stays closed."""
    if spec.name is not None and (spec.train or spec.eval or spec.test):
        raise UsageError("give either --task or local files (--train, --eval, --test), not both")
    if spec.name is not None and (spec.separator is not None or not spec.header):
        flag = "--no-header" if spec.separator is None else "--separator"
        raise UsageError(f"{flag} applies only to your own files: leave it out with --task")
    if spec.name is not None and spec.name.startswith("demo:"):
        return load_demo(spec)
    if spec.name is not None:
        from peftsearch.task.sources.hub import load_hub  # with the Hub's client

        return load_hub(spec)
    if spec.train is None and (spec.eval or spec.test):
        raise UsageError("no training data: give --train FILE beside --eval and --test")
    if spec.train is None:
        raise UsageError(
            "no data: give --task demo:tweets, --task owner/dataset:config, "
            "or --train FILE with --text and --label"
        )
    return _load_local(spec, _paths(spec, spec.train))


@dataclass(frozen=True)
class _Paths:
    train: str
    validation: str | None
    test: str | None


def _paths(spec: TaskSpec, train: str) -> _Paths:
    """The paths given; splits that were not given are looked for in the training folder."""
    splits = splits_in(train)
    if not splits:
        return _Paths(train, spec.eval, spec.test)
    if "train" not in splits:
        raise DataError(f"{train}: no train split in this folder; it has: {', '.join(splits)}")
    validation = next((splits[split] for split in VALIDATION if split in splits), None)
    return _Paths(splits["train"], spec.eval or validation, spec.test or splits.get("test"))


def _load_local(spec: TaskSpec, paths: _Paths) -> Task:
    def rows_of(path: str) -> Rows:
        return read_rows(path, spec.header, spec.separator)

    train = rows_of(paths.train)
    if spec.kind is None and parallel_paths(paths.train):
        if spec.labels:
            raise UsageError(
                f"--label is given {len(spec.labels)} times, for columns of 0 and 1, and parallel "
                f"text ({train.name}) has one target column: leave --label out"
            )
        spec = spec.model_copy(update={"kind": "seq2seq"})
        train = replace(train, notes=(*train.notes, "kind: seq2seq, as the data are parallel text"))
    label, names = labels_in(spec, train)

    def read(path: str) -> Rows:
        rows = rows_of(path)
        return without_hidden(rows, label, names)

    def read_test() -> Rows | None:
        rows = read(paths.test) if paths.test else None
        return None if rows is None or rows.table.empty else rows

    return assemble(
        spec,
        train.name,
        without_hidden(train, label, names),
        read(paths.validation) if paths.validation else None,
        read_test if paths.test else None,
    )
