"""Prompts: one text built from several columns, by their names or by a template."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from peftsearch.errors import DataError, UsageError, did_you_mean, listed
from peftsearch.task.rows.columns import find_text, first_of, is_nothing, text_column
from peftsearch.task.rows.rows import Rows
from peftsearch.task.spec import SEVERAL_COLUMNS, TEXT, ReadColumns, TaskSpec

__all__ = [
    "TemplateParts",
    "answer_column",
    "columns_to_predict",
    "joined_texts",
    "prompt_columns",
    "requested_template",
    "template_parts",
]

_FIELD = re.compile(r"\{([^{}\n]+)\}")
_NAME = re.compile(r"[\w .-]+")
_JOINT = "\n\n"

_BEFORE = ("system", "system_prompt")
_ASKED = ("instruction", "question", "prompt", "query")
_ANSWERS = ("output", "response", "completion", "answer", "answers.text", "answers")
_ABOUT = ("input", "context", "passage", "paragraph", "article", "document", "story")


def prompt_columns(rows: Rows, target: str | None) -> tuple[str, ...]:
    """Columns that form one prompt, guessed from their names: system prompt, instruction, context.
    Empty where a single text column is the better guess.
    """
    names = [str(name) for name in rows.table.columns if name != target]
    asked = first_of(_ASKED, names)
    if asked is None:
        return ()
    others = [name for name in names if name != asked and _is_text(rows, name)]
    before, about = first_of(_BEFORE, others), first_of(_ABOUT, others)
    found = tuple(name for name in (before, asked, about) if name is not None)
    # Beside an instruction, `text` holds the prompt and its answer (Alpaca's).
    return found if len(found) > 1 or asked.lower() == _ASKED[0] else ()


def answer_column(rows: Rows) -> str | None:
    """The column of answers beside one of questions or instructions, guessed from their names; None
    without two such columns, or beside a column named label or labels.
    """
    names = [str(name) for name in rows.table.columns]
    if first_of(_ASKED, names) is None or first_of(("label", "labels"), names) is not None:
        return None
    return first_of(_ANSWERS, names)


def _is_text(rows: Rows, column: str) -> bool:
    return all(isinstance(cell, str) or is_nothing(cell) for cell in rows.table[column].tolist())


def joined_texts(rows: Rows, columns: Sequence[str], template: str | None) -> list[str]:
    """One text a row: the filled template, or the non-empty columns joined by blank lines. A text
    is empty where every column is.
    """
    cells = {name: text_column(rows, name) for name in columns}
    if template is None:
        return [
            _JOINT.join(cell for cell in row if cell.strip())
            for row in zip(*cells.values(), strict=True)
        ]
    return [
        _filled(template, dict(zip(columns, row, strict=True))) if any(map(str.strip, row)) else ""
        for row in zip(*cells.values(), strict=True)
    ]


def columns_to_predict(
    rows: Rows, columns: Sequence[str], read: ReadColumns, writes: bool
) -> tuple[tuple[str, ...], str | None]:
    """Text columns of a file to predict, and the template that joins them: the columns named, else
    those that the model was trained on, else a guess of equally many.
    """
    if columns:
        return find_text(rows, columns, one_text=writes), None
    there = tuple(name for name in read.text if name in rows.table.columns)
    if there == read.text and there:
        return read.text, read.within
    if there and writes and read.within is None:
        return there, None  # instructions without a context have no such column
    lacks = next((name for name in read.text if name not in there), None)
    try:
        guess = find_text(rows, ())
    except DataError:
        guess = ()
    if lacks is None and guess:
        return guess, None
    if guess and (len(guess) == 1 if writes else len(guess) == len(read.text)):
        return guess, None
    if lacks is None:
        return find_text(rows, ()), None
    known = did_you_mean(lacks, map(str, rows.table.columns))
    raise DataError(
        f"{rows.name}: no column '{lacks}', which the model was trained on (--text names another)"
        f"{known}"
    )


def _filled(template: str, cells: dict[str, str]) -> str:
    return _FIELD.sub(lambda found: cells.get(found[1], found[0]), template)


@dataclass(frozen=True)
class TemplateParts:
    """A template's columns in their order; `within`, the part of it from the first column to the
    last (None for a single column); and `around`, the template with {text} in place of that part.
    """

    columns: tuple[str, ...]
    within: str | None
    around: str


def requested_template(
    spec: TaskSpec, names: Collection[str], target: str | None
) -> TemplateParts | None:
    """The parts of a task's template, for data with columns `names`; None where it names none."""
    if spec.template is None or (spec.guesses < SEVERAL_COLUMNS and TEXT in spec.template):
        return None
    if TEXT not in spec.template:
        if spec.text:
            raise UsageError(f"--template names its columns: leave out --text, or put {TEXT} in it")
        return template_parts(spec.template, names, None, target)
    unnamed = spec.text or (("text",) if "text" in names else ())
    return template_parts(spec.template, names, unnamed[0] if len(unnamed) == 1 else None, target)


def template_parts(
    template: str, names: Collection[str], text: str | None, target: str | None
) -> TemplateParts | None:
    """The parts of a template that names columns; None for one with `{text}` alone. `text` is the
    column that `{text}` stands for, where one was named or guessed.
    """
    said = list(dict.fromkeys(_FIELD.findall(template)))
    if template.count(TEXT) == 1 and not any(name in names for name in said if name != "text"):
        return None
    if text is not None:
        template = template.replace(TEXT, f"{{{text}}}")
        said = list(dict.fromkeys(_FIELD.findall(template)))
    columns = tuple(name for name in said if name in names)
    strange = next((name for name in said if name not in names and _NAME.fullmatch(name)), None)
    if strange == "text":
        raise DataError(
            f"--template: {TEXT} is ambiguous here: name its column with --text, or put the "
            f"columns in braces; columns are: {listed(list(names))}"
        )
    if strange is not None:
        raise DataError(f"--template: no column '{strange}'{did_you_mean(strange, names)}")
    if target in columns:
        raise DataError(f"--template: column '{target}' is the target")
    if not columns:
        raise DataError(
            f"--template names no column: put one in braces, or {TEXT}; columns are: "
            f"{listed(list(names))}"
        )
    spans = [found.span() for found in _FIELD.finditer(template) if found[1] in columns]
    begin, end = spans[0][0], spans[-1][1]
    within = template[begin:end]
    alone = len(columns) == 1 and within == f"{{{columns[0]}}}"
    return TemplateParts(
        columns, None if alone else within, template[:begin] + TEXT + template[end:]
    )
