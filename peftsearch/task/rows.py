"""Raw rows on their way to a task: read, not yet checked."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """A table and where it came from; `notes` are sentences about what reading it met."""

    name: str
    table: pd.DataFrame
    notes: tuple[str, ...] = field(default=())
