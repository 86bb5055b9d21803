"""Building a task from the rows of its splits: kind, columns, metric and examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from peftsearch.errors import UsageError, did_you_mean, listed
from peftsearch.task.class_names import by_training_names, by_training_numbers, named
from peftsearch.task.columns import (
    Columns,
    columns_in,
    find_columns,
    find_columns_of_flags,
    first_of,
    has_target_named,
)
from peftsearch.task.compressed import suffix_of
from peftsearch.task.early import refuse_contradictions
from peftsearch.task.kind import KINDS, Kind, kind_named
from peftsearch.task.kinds.seq2seq import TEXT_TARGETS
from peftsearch.task.label_sets import holds_lists
from peftsearch.task.metric import METRICS, Metric, f1_of
from peftsearch.task.metrics.classification import POSITIVE
from peftsearch.task.prompts import answer_column, asked_template, prompt_columns
from peftsearch.task.rows import Rows
from peftsearch.task.spec import GUESSES, Generation, ReadColumns, TaskSpec
from peftsearch.task.splitting import split_off
from peftsearch.task.task import Task
from peftsearch.task.text import Split
from peftsearch.wording import agree, counted

__all__ = ["assemble", "labels_in"]

EVAL_SHARE = 0.1
TEST_SHARE = 0.1
"""Shares of the examples at hand."""


@dataclass(frozen=True)
class _Reading:
    """Kind, columns and labels, found in the training rows and used for every split."""

    asked: TaskSpec
    spec: TaskSpec
    """`asked`, with {text} in place of a template's columns."""
    kind: Kind
    columns: Columns
    names: tuple[str, ...] | None
    """Names of the labels, where the training data hold indices into them."""
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: TaskSpec, kind: Kind, train: Rows) -> _Reading:
        columns, told = columns_of(spec, kind, train)
        kind, notes = kind.written_as(train, columns)
        names = class_names_of(spec, train, columns.label) if kind.output != "label sets" else None
        labels = kind.label_names(train, columns)
        return cls(spec, told, kind, columns, names, labels, tuple(notes))

    def split(self, rows: Rows) -> tuple[Split, list[str]]:
        """Texts and targets of an evaluation or test split, whose columns may have other names."""
        own = columns_in(
            rows, self.columns, lambda found: columns_of(self.asked, self.kind, found)[0]
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

    `read_test` reads the test rows when asked, None if there are none to read.
    """
    kind, guessed = kind_of(spec, train)
    _refuse_unused(spec, kind)
    reading = _Reading.of(spec, kind, train)
    kind, labels = reading.kind, tuple(named(label, reading.names) for label in reading.labels)
    metric, of_metric = _metric(spec, kind, labels)
    split, more = kind.to_split(train, reading.columns, reading.labels)
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


def kind_of(spec: TaskSpec, train: Rows) -> tuple[Kind, list[str]]:
    """The kind asked for, else a guess, with a note unless it is classification: seq2seq where one
    column answers another, or is named like a target text and none like a label; multilabel where
    the labels are lists.
    """
    refuse_contradictions(spec)
    if spec.kind is not None:
        return kind_named(spec.kind), []
    multilabel = KINDS["multilabel"]
    if spec.labels:
        return multilabel, ["kind: multilabel, as several label columns are given"]
    classification = KINDS["classification"]
    answer = answer_column(train) if spec.guesses > 1 and spec.label is None else None
    if answer is not None:
        return KINDS["seq2seq"], [_guessed(answer)]
    target = spec.label or (
        None
        if has_target_named(train, classification.target_names)
        else has_target_named(train, TEXT_TARGETS)
    )
    if target is None or target.lower() not in set(TEXT_TARGETS) - {*classification.target_names}:
        with_lists = target or has_target_named(train, multilabel.target_names)
        if with_lists is None or not holds_lists(train, with_lists):
            return classification, []
        return multilabel, [
            f"kind guessed: multilabel, as column '{with_lists}' holds lists (set it with --kind)"
        ]
    return KINDS["seq2seq"], [_guessed(target)]


def _guessed(target: str) -> str:
    return f"kind guessed: seq2seq, from column '{target}' (set it with --kind)"


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
                f"{flag} is about texts to be written, and this is {kind.name}: leave it out, or "
                "say --kind seq2seq or causal"
            )


def columns_of(spec: TaskSpec, kind: Kind, rows: Rows) -> tuple[Columns, TaskSpec]:
    """The columns named, or a guess; and the spec, with {text} in place of a template's columns."""
    if spec.labels:
        return find_columns_of_flags(rows, spec.text, spec.labels), spec
    targets = (*kind.target_names, *kind.weak_target_names)
    if kind.output != "texts":
        return find_columns(rows, spec.text, spec.label, targets, kind.needs_target), spec
    names = [str(name) for name in rows.table.columns]
    likely = answer_column(rows) if spec.guesses > 1 else None
    target = spec.label or likely or first_of(targets, names)
    parts = asked_template(spec, names, target)
    text = parts.columns if parts else spec.text
    if not text and spec.guesses > 1:
        text = prompt_columns(rows, target)
    label = spec.label or likely
    found = find_columns(rows, text, label, targets, kind.needs_target, one_text=True)
    found = replace(
        found,
        guessed_text=not (spec.text or parts),
        guessed_target=bool(found.label) and not spec.label,
    )
    if parts is None:
        return found, spec
    # Texts alone are learned whole, and with them everything in the template.
    within, around = (parts.within, parts.around) if found.label else (spec.template, None)
    return replace(found, within=within), spec.model_copy(update={"template": around})


def _older_rules(spec: TaskSpec, columns: Columns) -> list[str]:
    """A note where columns are guessed by the rules of earlier versions."""
    if spec.guesses == GUESSES or not columns.guessed:
        return []
    return [
        "columns guessed by the rules of earlier versions, one text column: a recipe that names "
        f"its columns, or says `guesses: {GUESSES}`, is read by those of this version"
    ]


def labels_in(spec: TaskSpec, train: Rows) -> tuple[str | None, tuple[str, ...] | None]:
    """The target column, named or guessed; and its class names, None where the kind predicts no
    labels.
    """
    kind, _ = kind_of(spec, train)
    label = columns_of(spec, kind, train)[0].label
    names = class_names_of(spec, train, label) or ()
    return label, names if kind.output == "labels" else None


def class_names_of(spec: TaskSpec, rows: Rows, label: str | None) -> tuple[str, ...] | None:
    """The class names of column `label`; None where its cells are no indices into names."""
    if label is None:
        return None
    if spec.guesses == 1 and "." in label:
        return None  # names inside a column were not looked for
    return rows.classes.get(label) or None


def _metric(spec: TaskSpec, kind: Kind, labels: tuple[str, ...]) -> tuple[Metric, list[str]]:
    """The metric, and a note on the label of F1 where the user named none."""
    name = spec.metric or kind.metrics[0]
    if name not in kind.metrics:
        raise UsageError(
            f"metric '{name}' does not fit {kind.name}{did_you_mean(name, kind.metrics)}"
        )
    if name != "f1":
        return METRICS[name], []
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
        share /= 1 - TEST_SHARE
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
