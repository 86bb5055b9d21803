"""One text out of several columns: an instruction and what it is about, a template's columns."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from peftsearch.errors import DataError, did_you_mean
from peftsearch.task.columns import find_text, first_of, is_nothing, text_column
from peftsearch.task.rows import Rows
from peftsearch.task.spec import TEXT, ReadColumns

__all__ = [
    "TemplateParts",
    "answer_column",
    "columns_to_predict",
    "joined_texts",
    "prompt_columns",
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
    """The columns that are one prompt together, as their names say: what comes before, what is
    asked, what it is about. Empty where a text column by itself is the better guess.
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
    """The column that answers what another asks, as their names say; None if there are no such two,
    or a label beside them.
    """
    names = [str(name) for name in rows.table.columns]
    if first_of(_ASKED, names) is None or first_of(("label", "labels"), names) is not None:
        return None
    return first_of(_ANSWERS, names)


def _is_text(rows: Rows, column: str) -> bool:
    return all(isinstance(cell, str) or is_nothing(cell) for cell in rows.table[column].tolist())


def joined_texts(rows: Rows, columns: Sequence[str], template: str | None) -> list[str]:
    """A text a row: the template with its columns put in, or those that are not empty with a blank
    line between. Empty where every column is.
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
    """The text columns of a file to be predicted, and the template within them: those named, else
    those that the model was trained on, else a guess of as many.
    """
    if columns:
        return find_text(rows, columns, one_text=writes), None
    there = tuple(name for name in read.text if name in rows.table.columns)
    if there == read.text and there:
        return read.text, read.within
    if there and writes and read.within is None:
        return there, None  # an instruction that is about nothing has no such column
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
    """A template's columns, in the order in which they come; `within`, from the first of them to
    the last (None for one alone); and the template with that as its text.
    """

    columns: tuple[str, ...]
    within: str | None
    around: str


def template_parts(
    template: str, names: Collection[str], text: str | None, target: str | None
) -> TemplateParts | None:
    """The parts of a template with columns in it; None for one that has `{text}` alone. `text` is
    the column that `{text}` stands for, where it was named or guessed.
    """
    said = list(dict.fromkeys(_FIELD.findall(template)))
    if template.count(TEXT) == 1 and not any(name in names for name in said if name != "text"):
        return None
    if text is not None:
        template = template.replace(TEXT, f"{{{text}}}")
        said = list(dict.fromkeys(_FIELD.findall(template)))
    columns = tuple(name for name in said if name in names)
    strange = next((name for name in said if name not in names and _NAME.fullmatch(name)), None)
    if strange is not None:
        raise DataError(f"--template: no column '{strange}'{did_you_mean(strange, names)}")
    if target in columns:
        raise DataError(f"--template: column '{target}' is what is predicted")
    spans = [found.span() for found in _FIELD.finditer(template) if found[1] in columns]
    begin, end = spans[0][0], spans[-1][1]
    within = template[begin:end]
    alone = len(columns) == 1 and within == f"{{{columns[0]}}}"
    return TemplateParts(
        columns, None if alone else within, template[:begin] + TEXT + template[end:]
    )
