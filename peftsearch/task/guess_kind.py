"""Determining the kind of a task and its columns, if not given, from the training rows."""

from __future__ import annotations

from dataclasses import replace

from peftsearch.task.early_checks import refuse_contradictions
from peftsearch.task.kinds.base import Kind
from peftsearch.task.kinds.label_set_notation import holds_lists
from peftsearch.task.kinds.seq2seq import TEXT_TARGETS
from peftsearch.task.kinds.table import KINDS, kind_named
from peftsearch.task.prompts import answer_column, prompt_columns, requested_template
from peftsearch.task.rows.columns import (
    Columns,
    find_columns,
    find_columns_of_flags,
    first_of,
    has_target_named,
)
from peftsearch.task.rows.rows import Rows
from peftsearch.task.spec import SEVERAL_COLUMNS, TaskSpec

__all__ = ["class_names_of", "columns_of", "kind_of", "labels_in"]


def kind_of(spec: TaskSpec, train: Rows) -> tuple[Kind, list[str]]:
    """The requested kind, else a guess, with a note unless it is classification: seq2seq where one
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
    answer = (
        answer_column(train) if spec.guesses >= SEVERAL_COLUMNS and spec.label is None else None
    )
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


def columns_of(spec: TaskSpec, kind: Kind, rows: Rows) -> tuple[Columns, TaskSpec]:
    """The columns named, or a guess; and the spec, with {text} in place of a template's columns."""
    if spec.labels:
        return find_columns_of_flags(rows, spec.text, spec.labels), spec
    targets = (*kind.target_names, *kind.weak_target_names)
    if kind.output != "texts":
        return find_columns(rows, spec.text, spec.label, targets, kind.needs_target), spec
    names = [str(name) for name in rows.table.columns]
    likely = answer_column(rows) if spec.guesses >= SEVERAL_COLUMNS else None
    target = spec.label or likely or first_of(targets, names)
    parts = requested_template(spec, names, target)
    text = parts.columns if parts else spec.text
    if not text and spec.guesses >= SEVERAL_COLUMNS:
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
    if spec.guesses < SEVERAL_COLUMNS and "." in label:
        return None  # names inside a column were not looked for
    return rows.classes.get(label) or None
