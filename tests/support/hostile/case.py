"""One bad input: the files it needs, the command line, and what is known of how it must end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.hostile.world import World

__all__ = ["Case", "Maker"]


@dataclass(frozen=True)
class Case:
    """`arguments` run in `folder`. `refused`: nothing but a refusal is right."""

    folder: Path
    arguments: list[str]
    about: str
    stdin: str = ""
    refused: bool = False


Maker = Callable[[random.Random, World, Path], Case]
"""(randomness, good inputs, an empty folder to fill) → a case."""
