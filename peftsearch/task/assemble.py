"""From rows of the splits that exist to a task with training, validation and test."""

from __future__ import annotations

from collections.abc import Callable

from peftsearch.task.classification import ClassificationTask
from peftsearch.task.columns import Columns, columns_in, find_columns, label_names, to_split
from peftsearch.task.rows import Rows
from peftsearch.task.spec import TaskSpec
from peftsearch.task.splitting import split_off
from peftsearch.task.text import Split

__all__ = ["assemble"]

EVAL_SHARE = 0.1
TEST_SHARE = 0.1
"""Shares of the examples at hand."""


def assemble(
    spec: TaskSpec,
    name: str,
    train: Rows,
    validation: Rows | None,
    read_test: Callable[[], Rows | None] | None,
    names: tuple[str, ...] | None = None,
) -> ClassificationTask:
    """A task from the splits at hand. Where only training rows exist, 10 % of each label become
    validation and 10 % test; where only validation is missing, 10 % become validation. Splits
    that were given are left as they are: a note says how many texts they share.

    `read_test` reads the test rows when asked, None if there are none to read. `names` are label
    names where the data hold indices into them.
    """
    columns = find_columns(train, spec.text, spec.label)
    labels = label_names(train, columns)
    split, notes = to_split(train, columns, labels)
    notes = [*train.notes, *([columns.note()] if columns.guessed else []), *notes]
    held_out: Split | None = None
    if validation is None:
        share = EVAL_SHARE
        if read_test is None:
            split, held_out = split_off(split, TEST_SHARE, spec.split_seed, train.name)
            share /= 1 - TEST_SHARE
        split, evaluated = split_off(split, share, spec.split_seed + 1, train.name)
        notes.append(_made(len(split), evaluated, held_out, spec.split_seed))
    else:
        own = columns_in(validation, columns, spec.text, spec.label)
        evaluated, more = to_split(validation, own, labels)
        if own != columns:
            more.insert(0, f"{validation.name}: {own.note()}")
        notes += [*validation.notes, *more, *_shared(validation.name, split, evaluated)]
    return ClassificationTask(
        spec=spec,
        name=name,
        labels=tuple(_named(label, names) for label in labels),
        train=split.sample(spec.train_examples, spec.split_seed),
        validation=evaluated.sample(spec.eval_examples, spec.split_seed).shuffled(spec.split_seed),
        load_test=lambda: (
            held_out if held_out is not None else _test(spec, read_test, columns, labels)
        ),
        notes=tuple(notes),
    )


def _made(left: int, evaluated: Split, held_out: Split | None, seed: int) -> str:
    test = f", {len(held_out):,} test" if held_out is not None else ""
    return f"split by seed {seed}: {left:,} training, {len(evaluated):,} validation{test}"


def _shared(name: str, train: Split, evaluated: Split) -> list[str]:
    shared = len(set(evaluated.inputs()) & set(train.inputs()))
    return [f"{name}: {shared:,} texts are also training texts"] if shared else []


def _named(label: str, names: tuple[str, ...] | None) -> str:
    return names[int(label)] if names and label.isdigit() and int(label) < len(names) else label


def _test(
    spec: TaskSpec,
    read_test: Callable[[], Rows | None] | None,
    columns: Columns,
    labels: tuple[str, ...],
) -> Split | None:
    rows = read_test() if read_test is not None else None
    if rows is None:
        return None
    return to_split(rows, columns_in(rows, columns, spec.text, spec.label), labels)[0]
