"""Every kind of bad input, and how many of them make a hundred."""

from __future__ import annotations

from support.hostile.case import Maker
from support.hostile.exports import export_case
from support.hostile.flags import flag_case, name_case
from support.hostile.models import model_case
from support.hostile.recipes import recipe_case
from support.hostile.spaces import space_case
from support.hostile.studies import study_case
from support.hostile.tables import table_case

__all__ = ["KINDS", "chosen"]

KINDS: dict[str, tuple[int, Maker]] = {
    "space": (22, space_case),
    "data": (22, table_case),
    "study": (18, study_case),
    "flags": (14, flag_case),
    "recipe": (9, recipe_case),
    "export": (7, export_case),
    "model": (5, model_case),
    "name": (3, name_case),
}


def chosen(index: int) -> tuple[str, Maker]:
    """The kind of the case with this number: each has its share of any hundred in a row."""
    place = index * 37 % 100
    for name, (share, maker) in KINDS.items():
        if place < share:
            return name, maker
        place -= share
    raise AssertionError("shares make a hundred")
