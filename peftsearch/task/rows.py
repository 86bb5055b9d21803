"""Raw rows on their way to a task: read, not yet checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """A table and where it came from; `notes` are sentences about what reading it met."""

    name: str
    table: pd.DataFrame
    notes: tuple[str, ...] = field(default=())
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column → names of its labels, where its cells are indices into them."""

    @cached_property
    def numbers(self) -> list[int]:
        """Of each row its number (from 1) in the file: rows may have been left out since."""
        return [int(index) + 1 for index in self.table.index]
