"""What the parts of a space file have in common."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import BaseModel, ConfigDict

from peftsearch.errors import did_you_mean
from peftsearch.space.file.values import Values

__all__ = ["Model", "all_known"]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def all_known(values: Values, known: Collection[str], what: str) -> Values:
    """The values, or a ValueError that names the nearest known name."""
    for choice in values.choices:
        if choice not in known:
            raise ValueError(f"{what} '{choice}' unknown{did_you_mean(str(choice), known)}")
    return values
