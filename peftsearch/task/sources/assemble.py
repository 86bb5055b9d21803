"""Building a task from the rows of its splits: kind, columns, metric and examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peftsearch.errors import UsageError, did_you_mean, listed
from peftsearch.task.guess_kind import class_names_of, columns_of, kind_of
from peftsearch.task.kinds.base import Kind
from peftsearch.task.metrics.base import Metric
from peftsearch.task.metrics.classification import POSITIVE, f1_of
from peftsearch.task.metrics.table import METRICS
from peftsearch.task.rows.columns import Columns, columns_in
from peftsearch.task.rows.compressed import suffix_of
from peftsearch.task.rows.rows import Rows
from peftsearch.task.sources.class_names import by_training_names, by_training_numbers, named
from peftsearch.task.sources.splitting import split_off
from peftsearch.task.spec import (
    GUESSES,
    METRIC_BY_TARGETS,
    SEVERAL_COLUMNS,
    Generation,
    ReadColumns,
    TaskSpec,
)
from peftsearch.task.split import Split
from peftsearch.task.task import Task
from peftsearch.wording import agree, counted

__all__ = ["assemble"]

EVAL_SHARE = 0.1
TEST_SHARE = 0.1
"""Shares of the examples at hand."""


@dataclass(frozen=True)
class _Reading:
    """Kind, columns and labels, found in the training rows and used for every split."""

    requested: TaskSpec
    spec: TaskSpec
    """`requested`, with {text} in place of a template's columns."""
    kind: Kind
    columns: Columns
    names: tuple[str, ...] | None
    """Names of the labels, where the training data hold indices into them."""
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: TaskSpec, kind: Kind, train: Rows) -> _Reading:
        columns, told = columns_of(spec, kind, train)
        kind, notes = kind.adapted_to(train, columns)
        names = class_names_of(spec, train, columns.label) if kind.output != "label sets" else None
        labels = kind.label_names(train, columns)
        return cls(spec, told, kind, columns, names, labels, tuple(notes))

    def split(self, rows: Rows) -> tuple[Split, list[str]]:
        """Texts and targets of an evaluation or test split, whose columns may have other names."""
        own = columns_in(
            rows, self.columns, lambda found: columns_of(self.requested, self.kind, found)[0]
        )
        guessed = [] if own == self.columns else [f"{rows.name}: {own.notes(rows)[0]}"]
        if self.kind.output == "labels":
            rows = by_training_names(rows, own, self.names, self.labels)
        if self.kind.output == "values":
            rows = by_training_numbers(rows, str(own.label), self.names)
        split, notes = self.kind.to_split(rows, own, self.labels)
        return split, [*rows.notes, *guessed, *notes]


def assemble(
    spec: TaskSpec,
    name: str,
    train: Rows,
    validation: Rows | None,
    read_test: Callable[[], Rows | None] | None,
) -> Task:
    """A task from the splits at hand. Where only training rows exist, 10 % of each label become
    validation and 10 % test; where only validation is missing, 10 % become validation. Splits
    that were given are left as they are: a note says how many texts they share.

    `read_test` reads the test rows when called, None if there are none to read.
    """
    kind, guessed = kind_of(spec, train)
    _refuse_unused(spec, kind)
    reading = _Reading.of(spec, kind, train)
    kind, labels = reading.kind, tuple(named(label, reading.names) for label in reading.labels)
    if spec.metric is not None:
        _refuse_unfit(spec.metric, kind)
    split, more = kind.to_split(train, reading.columns, reading.labels)
    metric, of_metric = _metric(spec, kind, labels, split)
    kind.check(split, train.name)
    read = [*reading.columns.notes(train), *_older_rules(spec, reading.columns), *reading.notes]
    notes = [*train.notes, *guessed, *read, *of_metric, *more]
    held_out: Split | None = None
    if validation is None:
        split, evaluated, held_out = _divided(spec, kind, split, train.name, read_test is None)
        notes.append(_made(len(split), evaluated, held_out, spec.split_seed))
    else:
        evaluated, more = reading.split(validation)
        notes += [*more, *_shared(validation.name, split, evaluated)]
    given = len(split), len(evaluated)
    split = split.sample(spec.train_examples, spec.split_seed)
    evaluated = evaluated.sample(spec.eval_examples, spec.split_seed)
    notes += kind.remarks(split, labels, "training")
    notes += kind.remarks(evaluated, labels, "validation")
    return Task(
        spec=reading.spec,
        name=name,
        kind=kind,
        metric=metric,
        labels=labels,
        train=split,
        # Rungs below full length evaluate the first examples only: these must be a fair subset.
        validation=evaluated.shuffled(spec.split_seed),
        load_test=lambda: held_out if held_out is not None else _test(read_test, reading),
        notes=tuple(notes),
        rows=len(train.table),
        validation_rows=None if validation is None else len(validation.table),
        given=given,
        reading=ReadColumns(
            text=reading.columns.text,
            within=reading.columns.within,
            suffix=suffix_of(spec.train or ""),
            header=spec.header,
            separator=spec.separator,
        ),
    )


def _refuse_unused(spec: TaskSpec, kind: Kind) -> None:
    """UsageError for options of tasks that write texts, where this one writes none."""
    if kind.output == "texts":
        return
    said = {
        "--template": spec.template,
        "--max-target": spec.max_target,
        "--languages": spec.languages,
        "--beams": None if spec.generation == Generation() else spec.generation,
    }
    for flag, value in said.items():
        if value is not None:
            raise UsageError(
                f"{flag} applies only to tasks that generate text, and this is {kind.name}: leave "
                "it out, or give --kind seq2seq or causal"
            )


def _older_rules(spec: TaskSpec, columns: Columns) -> list[str]:
    """A note where columns are guessed by the rules of earlier versions."""
    if spec.guesses >= SEVERAL_COLUMNS or not columns.guessed:
        return []
    return [
        "columns guessed by the rules of earlier versions, one text column: a recipe that names "
        f"its columns, or says `guesses: {GUESSES}`, is read by those of this version"
    ]


def _refuse_unfit(metric: str, kind: Kind) -> None:
    if metric not in kind.metrics:
        raise UsageError(
            f"metric '{metric}' does not fit {kind.name}{did_you_mean(metric, kind.metrics)}"
        )


def _metric(
    spec: TaskSpec, kind: Kind, labels: tuple[str, ...], train: Split
) -> tuple[Metric, list[str]]:
    """The metric, and a note on it, or on the label of F1, where the user left it open."""
    if spec.metric is None:
        by_targets = spec.guesses >= METRIC_BY_TARGETS
        name, notes = kind.default_metric(train.targets) if by_targets else (kind.metrics[0], [])
        return METRICS[name], notes
    if spec.metric != "f1":
        return METRICS[spec.metric], []
    if spec.positive is not None:
        if spec.positive not in labels:
            raise UsageError(f"--positive {spec.positive}: the labels are {listed(labels)}")
        return f1_of(spec.positive, labels.index(spec.positive)), []
    if len(labels) != 2:
        raise UsageError(
            f"metric 'f1' is of one label against the others, and there are {len(labels)}: name it "
            "with --positive, or take macro_f1"
        )
    metric = f1_of(labels[POSITIVE], POSITIVE)
    return metric, [f"f1 is of label '{labels[POSITIVE]}' (set it with --positive)"]


def _divided(
    spec: TaskSpec, kind: Kind, split: Split, name: str, with_test: bool
) -> tuple[Split, Split, Split | None]:
    """Training and validation examples, and with `with_test` test examples, all out of `split`."""
    held_out: Split | None = None
    share = EVAL_SHARE
    if with_test:
        split, held_out = split_off(split, kind.strata(split), TEST_SHARE, spec.split_seed, name)
        share /= 1 - TEST_SHARE  # a tenth of all examples, not of those that are left
    split, evaluated = split_off(split, kind.strata(split), share, spec.split_seed + 1, name)
    return split, evaluated, held_out


def _made(left: int, evaluated: Split, held_out: Split | None, seed: int) -> str:
    test = f", {len(held_out):,} test" if held_out is not None else ""
    return f"split by seed {seed}: {left:,} training, {len(evaluated):,} validation{test}"


def _shared(name: str, train: Split, evaluated: Split) -> list[str]:
    shared = len(set(evaluated.inputs()) & set(train.inputs()) - {("", "")})
    also = agree(shared, "is also a training text", "are also training texts")
    return [f"{name}: {counted(shared, 'text')} {also}"] if shared else []


def _test(read_test: Callable[[], Rows | None] | None, reading: _Reading) -> Split | None:
    """The test split; None if there is none, or if every label in it is hidden."""
    rows = read_test() if read_test is not None else None
    if rows is None or not reading.kind.has_targets(rows, reading.columns):
        return None
    return reading.split(rows)[0]
