"""Task settings as the user gave them, before any data is read."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = [
    *("GUESSES", "METRIC_BY_TARGETS", "SEVERAL_COLUMNS"),
    *("TEXT", "Generation", "ReadColumns", "TaskSpec"),
]

TEXT = "{text}"
SEVERAL_COLUMNS = 2
METRIC_BY_TARGETS = 3
GUESSES = METRIC_BY_TARGETS
"""Newest version of the rules that fill in what a task leaves open. 1: one text column. 2: prompts
of several. 3: the default metric of texts by the targets.
"""
_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " "}
"""Names of separators that are hard to type in a shell."""


class Generation(BaseModel):
    """Decoding settings of tasks that write text; there is no sampling."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    beams: int = Field(default=1, ge=1, le=64)
    """1 is greedy."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Default: what targets are cut to."""
    min_tokens: int = Field(default=0, ge=0)
    no_repeat_ngram: int = Field(default=0, ge=0)
    length_penalty: float = 1.0


class TaskSpec(BaseModel):
    """A task by name (`demo:tweets`, `owner/dataset:config`) or by local files. Open fields are
    filled in from the data. ValidationError for an unknown field or a value out of range.

    Stored in study.json, where paths are as the user gave them.

    >>> TaskSpec(train="news.csv", text=("body",), label="topic").to_file()
    {'train': 'news.csv', 'text': ['body'], 'label': 'topic', 'guesses': 3}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    train: str | None = None
    """Training file or folder; `eval` and `test` alike, split off from it where not given."""
    eval: str | None = None
    test: str | None = None
    text: tuple[str, ...] = ()
    """Text columns: one, two of a pair, or those of a prompt; empty: guessed, with a note."""
    label: str | None = None
    """The target column: a label, a list of labels, a number or a text."""
    labels: tuple[str, ...] = ()
    """Several columns of 0 and 1, a label each; `label` is None then."""
    split_seed: int = Field(default=0, ge=0)
    """Fixes which examples are set aside, and which are kept where there are limits."""
    train_examples: int | None = Field(default=None, ge=1)
    """Maximum number of training examples (a fixed random subset)."""
    eval_examples: int | None = Field(default=None, ge=1)
    kind: str | None = None
    """classification, multilabel, regression, seq2seq or causal; None: guessed, with a note."""
    metric: str | None = None
    """None: the data set's in the table of known ones, or the kind's default."""
    positive: str | None = None
    """Name of the label of the metric f1; None: the second of two, with a note."""
    header: bool = True
    """True where the first line of csv and tsv files names their columns."""
    separator: str | None = None
    """Between the columns of csv, tsv and other tables of text (default: by their extension)."""
    template: str | None = None
    """Model input with {text} for the text, or columns in braces; for tasks that write text."""
    max_target: int | None = Field(default=None, ge=1)
    """Length in tokens to which target texts are cut (default: from the data)."""
    languages: tuple[str, str] | None = None
    """Codes of the source and target languages, for models that need them."""
    generation: Generation = Generation()
    guesses: int = Field(default=GUESSES, ge=1, le=GUESSES)
    """Version of the rules that fill in open fields; stored tasks without it use 1."""

    @field_validator("template")
    @classmethod
    def _has_a_text(cls, template: str | None) -> str | None:
        if template is not None and template.count(TEXT) != 1 and not _names_columns(template):
            raise ValueError(
                f"a template needs {TEXT} once, where the text goes, or columns in braces"
            )
        return template

    @field_validator("separator")
    @classmethod
    def _is_a_character(cls, separator: str | None) -> str | None:
        said = None if separator is None else _SEPARATORS.get(separator, separator)
        if said is not None and (len(said) != 1 or said in '"\r\n\0' or not _fits(said)):
            names = ", ".join(name for name in _SEPARATORS if name.isalpha())
            raise ValueError(f"one character that is no letter or digit, or one of {names}")
        return said

    @classmethod
    def of_file(cls, written: Any) -> TaskSpec:
        """Parse a stored task. Files without `guesses` keep the rules of version 1."""
        older = isinstance(written, dict) and "guesses" not in written
        return cls.model_validate({**written, "guesses": 1} if older else written)

    def to_file(self) -> dict[str, Any]:
        """Serialise for `of_file`, omitting defaults."""
        return {**self.model_dump(exclude_defaults=True, mode="json"), "guesses": self.guesses}


class ReadColumns(BaseModel):
    """Columns that texts are built from; stored so that exports read new files the same way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: tuple[str, ...] = ()
    within: str | None = None
    """Template that joins several columns, each as {column}; None: joined by a blank line."""
    suffix: str = ""
    """Extension of the training file; files with the same one reuse its header and separator."""
    header: bool = True
    separator: str | None = None


def _fits(separator: str) -> bool:
    return separator.isascii() and not separator.isalnum()


def _names_columns(template: str) -> bool:
    return TEXT not in template and re.search(r"\{[^{}\n]+\}", template) is not None
