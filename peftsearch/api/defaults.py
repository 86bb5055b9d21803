"""Defaults and bounds of a search's options: one table for Python and the command line.

Nothing is imported here: `peftsearch --help` shows these numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BOUNDS", "DEFAULTS", "Bounds", "Defaults"]

_LARGEST_SEED = 2**53 - 1
"""Torch takes a little more; JSON's numbers are exact to here."""


@dataclass(frozen=True)
class Defaults:
    """Values of options that are left out. Options without a default here are taken
    from the space, the data or the study.
    """

    space: str = "unified"
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    sampler: str = "auto"


DEFAULTS = Defaults()


@dataclass(frozen=True)
class Bounds:
    """The least and the largest value of an option that is a number; `whole` without fractions."""

    least: int
    most: int | None = None
    whole: bool = True

    def __str__(self) -> str:
        """`a whole number from 1 to 1,024`."""
        kind = "a whole number" if self.whole else "a number"
        if self.most is None:
            return f"{kind} of at least {self.least}"
        return f"{kind} from {self.least} to {self.most:,}"


BOUNDS = {
    "trials": Bounds(1),
    "minutes": Bounds(0, whole=False),
    "hours": Bounds(0, whole=False),
    "workers": Bounds(1, 1024),
    "threads": Bounds(1, 1024),
    "cohort": Bounds(1, 1024),
    "seed": Bounds(0, _LARGEST_SEED),
    "max_length": Bounds(4),
    "max_target": Bounds(1),
    "beams": Bounds(1),
    "train_examples": Bounds(2),
    "eval_examples": Bounds(2),
    "eval_limit": Bounds(2),
}
"""Option → what it may be."""
