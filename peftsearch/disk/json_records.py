"""Reading and writing JSON records; errors name the file and the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from peftsearch.errors import UsageError
from peftsearch.wording import first_problem

__all__ = ["json_line", "json_text", "parse_record", "read_json", "read_record"]

Model = TypeVar("Model", bound=BaseModel)


def json_text(value: BaseModel | Any) -> str:
    """The value as indented JSON, for its own file."""
    return json.dumps(_plain(value), indent=1, ensure_ascii=False) + "\n"


def json_line(value: BaseModel) -> str:
    """The record as JSON on one line, without the newline."""
    return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False)


def read_record(path: Path, model: type[Model], what_to_do: str) -> Model | None:
    """The record in a file, None if there is no such file; UsageError if it is not readable."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); {what_to_do}") from error
    return parse_record(text, model, str(path), what_to_do)


def parse_record(text: bytes, model: type[Model], where: str, what_to_do: str) -> Model:
    """A record from JSON; UsageError that begins with `where` and ends with `what_to_do`."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{where}: {first_problem(error)}; {what_to_do}") from error


def read_json(path: Path, what_to_do: str) -> dict[str, Any] | None:
    """The JSON object in a file, None if there is no such file; UsageError if it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); {what_to_do}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: holds no JSON object; {what_to_do}")
    return value


def _plain(value: BaseModel | Any) -> Any:
    # Not model_dump_json: that turns NaN and infinity into null, which no float field reads back.
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
