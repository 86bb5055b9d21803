"""Recipe files: one configuration and everything `peftsearch train` needs to train it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration
from peftsearch.errors import ConfigurationError
from peftsearch.export.package import SOURCES
from peftsearch.space.file.document import Document, dump_yaml
from peftsearch.space.file.path_resolver import PathResolver
from peftsearch.task.sources.absolute_paths import FILES
from peftsearch.task.spec import TaskSpec

__all__ = ["Recipe"]


class Recipe(BaseModel):
    """A recipe file. The same recipe, on the same machine with the same threads, gives the same
    curve bit for bit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    description: str = ""
    model: str
    task: TaskSpec
    epochs: float | None = None
    max_steps: int | None = None
    rungs: tuple[float, ...] = TrainingBudget.rungs
    rung_examples: int = TrainingBudget.rung_examples
    max_length: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**53)
    tokenizer: str | None = None
    target_tokenizer: str | None = None
    low_rungs: str | None = None
    """The low precision of frozen layers below full length."""
    configuration: dict[str, Any]

    @field_validator("task", mode="before")
    @classmethod
    def _task_of_a_file(cls, written: Any) -> Any:
        return TaskSpec.of_file(written) if isinstance(written, dict) else written

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe file; relative paths are resolved from the file's folder or the working
        folder. SpaceError or ConfigurationError with file and line if it is wrong.
        """
        document = Document.read(path)
        recipe = document.validated(cls)._with_whole_paths(PathResolver(document, path.parent))
        for key, check in (("configuration", recipe.parsed), ("epochs", recipe.budget)):
            try:
                check()
            except ConfigurationError as error:
                raise document.error([key], str(error)) from error
        return recipe

    def to_yaml(self) -> str:
        plain = self.model_dump(
            by_alias=True, exclude_none=True, exclude_defaults=False, mode="json"
        )
        plain["task"] = self.task.to_file()
        return f"# peftsearch train THIS_FILE --to OUT/\n{dump_yaml(plain)}"

    def _with_whole_paths(self, resolver: PathResolver) -> Recipe:
        sources = {key: resolver.source([key], getattr(self, key)) for key in SOURCES}
        data = {key: resolver.data(["task", key], getattr(self.task, key)) for key in FILES}
        task = self.task.model_copy(update=data)
        return self.model_copy(update=sources | {"task": task})

    def parsed(self) -> Configuration:
        return Configuration.from_json(self.configuration)

    def budget(self) -> TrainingBudget:
        return TrainingBudget(
            epochs=self.epochs,
            max_steps=self.max_steps,
            rungs=self.rungs,
            rung_examples=self.rung_examples,
        )
