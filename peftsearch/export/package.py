"""The native format: a folder with configuration.json and adapter.safetensors.

It holds the tuned tensors, the head, and what is needed to attach them to the same backbone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peftsearch.backbone.loading.source import absolute_source
from peftsearch.design.configuration import Configuration
from peftsearch.errors import DataError, MissingError
from peftsearch.task.spec import Generation, ReadColumns, TaskSpec
from peftsearch.wording import first_problem

if TYPE_CHECKING:
    from peftsearch.backbone.loading.language import Tokenizers

__all__ = ["ADAPTER", "CONFIGURATION", "SOURCES", "Package"]

CONFIGURATION = "configuration.json"
ADAPTER = "adapter.safetensors"
SOURCES = ("model", "tokenizer", "target_tokenizer")
"""Fields of exports and recipes that name a model or a tokenizer."""


class Package(BaseModel):
    """The contents of an export's configuration.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    configuration: dict[str, Any]
    configuration_hash: str
    description: str
    model: str
    model_fingerprint: str
    labels: tuple[str, ...]
    max_length: int = Field(ge=1)
    task: str
    metric: str
    validation_metric: float | None = None
    tuned_parameters: int
    tuned_pct: float
    kind: str = "classification"
    precision: str = "fp32"
    value_scale: tuple[float, float] | None = None
    """Mean and standard deviation of the targets, which scale the output of a regression head."""
    template: str | None = None
    reading: ReadColumns = ReadColumns()
    """Columns of the training file that texts were built from, for reading new files."""
    max_target: int | None = None
    languages: tuple[str, str] | None = None
    generation: Generation = Generation()
    tokenizer: str | None = None
    target_tokenizer: str | None = None
    is_encoder_decoder: bool = False
    origin: str = ""
    """`study NAME, trial 28`, or the recipe it was trained from."""

    @classmethod
    def of(cls, configuration: Configuration, spec: TaskSpec, /, **facts: Any) -> Package:
        """An export's description: fields derived from a configuration and its task, and `facts`,
        the other fields, which take precedence over derived ones.
        """
        follows = {
            "configuration": configuration.to_json(),
            "configuration_hash": configuration.hash,
            "description": configuration.describe(),
            "precision": configuration.training.precision,
            "template": spec.template,
            "max_target": spec.max_target,
            "languages": spec.languages,
            "generation": spec.generation,
        }
        sources = {key: absolute_source(facts[key]) for key in SOURCES if key in facts}
        return cls.model_validate({**follows, **facts, **sources})

    @property
    def output(self) -> str:
        """labels, label sets, values or texts."""
        from peftsearch.task.kinds.table import kind_named  # with pandas

        return kind_named(self.kind).output

    @property
    def outputs(self) -> int:
        """Width of the head."""
        from peftsearch.task.kinds.table import kind_named

        return kind_named(self.kind).outputs(self.labels)

    @property
    def tokenizers(self) -> Tokenizers:
        from peftsearch.backbone.loading.language import Tokenizers  # with torch

        return Tokenizers(self.tokenizer, self.target_tokenizer, self.languages)

    @property
    def spec(self) -> TaskSpec:
        """The task settings that prediction needs."""
        return TaskSpec(
            kind=self.kind,
            template=self.template,
            max_target=self.max_target,
            languages=self.languages,
            generation=self.generation,
        )

    @classmethod
    def read(cls, folder: Path) -> Package:
        """The export in `folder`; MissingError if there is none, DataError if it is damaged."""
        path = folder / CONFIGURATION
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise MissingError(
                f"no export at '{folder}': a folder with {CONFIGURATION} and {ADAPTER} is needed "
                "(peftsearch export makes one)"
            ) from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not an export of peftsearch ({_first(error)})") from error


def _first(error: Exception) -> str:
    return str(first_problem(error) if isinstance(error, ValidationError) else error)
