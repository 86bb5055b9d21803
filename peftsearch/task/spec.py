"""What the user asked to be solved, before any data is read."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["TaskSpec"]


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
    split_seed: int = Field(default=0, ge=0)
    train_examples: int | None = Field(default=None, ge=1)
    """Use at most so many training examples (a fixed random subset)."""
    eval_examples: int | None = Field(default=None, ge=1)
