"""From rows of the splits that exist to a task with training, validation and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peftsearch.errors import UsageError, did_you_mean
from peftsearch.task.columns import Columns, columns_in, find_columns, has_target_named
from peftsearch.task.kind import KINDS, Kind, kind_named
from peftsearch.task.kinds.seq2seq import TEXT_TARGETS
from peftsearch.task.metric import METRICS, Metric
from peftsearch.task.rows import Rows
from peftsearch.task.spec import Generation, TaskSpec
from peftsearch.task.splitting import split_off
from peftsearch.task.task import Task
from peftsearch.task.text import Split
from peftsearch.wording import agree, counted

__all__ = ["assemble", "kind_of"]

EVAL_SHARE = 0.1
TEST_SHARE = 0.1
"""Shares of the examples at hand."""


@dataclass(frozen=True)
class _Reading:
    """How the rows of every split are read."""

    spec: TaskSpec
    kind: Kind
    columns: Columns
    labels: tuple[str, ...]

    @classmethod
    def of(cls, spec: TaskSpec, kind: Kind, train: Rows) -> _Reading:
        columns = _find(spec, kind, train)
        return cls(spec, kind, columns, kind.label_names(train, columns))

    def split(self, rows: Rows) -> tuple[Split, list[str]]:
        """A split beside the training rows', whose columns may have names of their own."""
        own = columns_in(rows, self.columns, lambda found: _find(self.spec, self.kind, found))
        split, notes = self.kind.to_split(rows, own, self.labels)
        return split, notes if own == self.columns else [f"{rows.name}: {own.note()}", *notes]


def assemble(
    spec: TaskSpec,
    name: str,
    train: Rows,
    validation: Rows | None,
    read_test: Callable[[], Rows | None] | None,
    names: tuple[str, ...] | None = None,
) -> Task:
    """A task from the splits at hand. Where only training rows exist, 10 % of each label become
    validation and 10 % test; where only validation is missing, 10 % become validation. Splits
    that were given are left as they are: a note says how many texts they share.

    `read_test` reads the test rows when asked, None if there are none to read. `names` are label
    names where the data hold indices into them.
    """
    kind, guessed = kind_of(spec, train)
    _refuse_unused(spec, kind)
    reading = _Reading.of(spec, kind, train)
    split, more = kind.to_split(train, reading.columns, reading.labels)
    kind.check(split, train.name)
    columns_note = [reading.columns.note()] if reading.columns.guessed else []
    notes = [*train.notes, *guessed, *columns_note, *more]
    held_out: Split | None = None
    if validation is None:
        split, evaluated, held_out = _divided(spec, kind, split, train.name, read_test is None)
        notes.append(_made(len(split), evaluated, held_out, spec.split_seed))
    else:
        evaluated, more = reading.split(validation)
        notes += [*validation.notes, *more, *_shared(validation.name, split, evaluated)]
    return Task(
        spec=spec,
        name=name,
        kind=kind,
        metric=_metric(spec, kind, reading.labels),
        labels=tuple(_named(label, names) for label in reading.labels),
        train=split.sample(spec.train_examples, spec.split_seed),
        validation=evaluated.sample(spec.eval_examples, spec.split_seed).shuffled(spec.split_seed),
        load_test=lambda: held_out if held_out is not None else _test(read_test, reading),
        notes=tuple(notes),
    )


def kind_of(spec: TaskSpec, train: Rows) -> tuple[Kind, list[str]]:
    """The kind asked for; else a guess: texts are written where a column is named as they often
    are and none as labels often are. With a note where it is a guess of texts.
    """
    if spec.kind is not None:
        return kind_named(spec.kind), []
    classification = KINDS["classification"]
    target = spec.label or (
        None
        if has_target_named(train, classification.target_names)
        else has_target_named(train, TEXT_TARGETS)
    )
    if target is None or target.lower() not in set(TEXT_TARGETS) - {*classification.target_names}:
        return classification, []
    return KINDS["seq2seq"], [f"kind guessed: seq2seq, from column '{target}' (set it with --kind)"]


def _refuse_unused(spec: TaskSpec, kind: Kind) -> None:
    """What is said about writing texts must not be passed over where none are written."""
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


def _find(spec: TaskSpec, kind: Kind, rows: Rows) -> Columns:
    return find_columns(rows, spec.text, spec.label, kind.target_names, kind.needs_target)


def _metric(spec: TaskSpec, kind: Kind, labels: tuple[str, ...]) -> Metric:
    name = spec.metric or kind.metrics[0]
    if name not in kind.metrics:
        raise UsageError(
            f"metric '{name}' is none of {kind.name}{did_you_mean(name, kind.metrics)}"
        )
    if name == "f1" and len(labels) != 2:
        raise UsageError(f"metric 'f1' is of two labels, not {len(labels)}: take macro_f1")
    return METRICS[name]


def _divided(
    spec: TaskSpec, kind: Kind, split: Split, name: str, with_test: bool
) -> tuple[Split, Split, Split | None]:
    """Training, validation and (unless there is one) test, out of the training examples."""
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


def _named(label: str, names: tuple[str, ...] | None) -> str:
    return names[int(label)] if names and label.isdigit() and int(label) < len(names) else label


def _test(read_test: Callable[[], Rows | None] | None, reading: _Reading) -> Split | None:
    rows = read_test() if read_test is not None else None
    return None if rows is None else reading.split(rows)[0]
