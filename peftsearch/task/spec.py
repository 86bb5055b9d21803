"""What the user asked to be solved, before any data is read."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["Generation", "TaskSpec"]

TEXT = "{text}"


class Generation(BaseModel):
    """How predictions are written, where the task is to write text: never drawn at random."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    beams: int = Field(default=1, ge=1, le=64)
    """1 is greedy."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Default: what targets are cut to."""
    min_tokens: int = Field(default=0, ge=0)
    no_repeat_ngram: int = Field(default=0, ge=0)
    length_penalty: float = 1.0


class TaskSpec(BaseModel):
    """A task by name (`demo:tweets`, `owner/dataset:config`) or by local files.

    Stored in study.json; local paths are kept as the user gave them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    train: str | None = None
    eval: str | None = None
    test: str | None = None
    text: tuple[str, ...] = ()
    """One or two column names; empty: guessed from the columns, and said."""
    label: str | None = None
    """The column of what is predicted: a label, a list of labels, a number or a text."""
    labels: tuple[str, ...] = ()
    """Several columns of 0 and 1, a label each; `label` is None then."""
    split_seed: int = Field(default=0, ge=0)
    train_examples: int | None = Field(default=None, ge=1)
    """Use at most so many training examples (a fixed random subset)."""
    eval_examples: int | None = Field(default=None, ge=1)
    kind: str | None = None
    """classification, multilabel, regression, seq2seq or causal; None: guessed, and said."""
    metric: str | None = None
    """None: the data set's in the table of known ones, or the kind's first."""
    positive: str | None = None
    """The label that the metric f1 is of, by name; None: the second of two, and said."""
    header: bool = True
    """Whether the first line of csv and tsv files names their columns."""
    template: str | None = None
    """What the model reads, with {text} for the text; of texts to be written only."""
    max_target: int | None = Field(default=None, ge=1)
    """Tokens that a text to be written is cut to (default: from the data)."""
    languages: tuple[str, str] | None = None
    """Codes of the source's and the target's language, for models that want them."""
    generation: Generation = Generation()

    @field_validator("template")
    @classmethod
    def _has_a_text(cls, template: str | None) -> str | None:
        if template is not None and template.count(TEXT) != 1:
            raise ValueError(f"a template needs {TEXT} once, where the text goes")
        return template
