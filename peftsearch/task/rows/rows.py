"""Rows of a data file, as read: a table with its name, notes and class names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """A table, its name in messages, and notes for the user."""

    name: str
    table: pd.DataFrame
    notes: tuple[str, ...] = field(default=())
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class names by column, where its cells are indices into them."""

    @cached_property
    def numbers(self) -> list[int]:
        """Numbers (from 1) of the rows in the file, from which some may have been left out."""
        return [int(index) + 1 for index in self.table.index]
