"""Recipes that are spoilt, given to `train`."""

from __future__ import annotations

import random
from pathlib import Path

from support.hostile.case import Case
from support.hostile.mutate import damaged, spoilt
from support.hostile.spaces import yaml_of
from support.hostile.world import World

__all__ = ["recipe_case"]


def recipe_case(draw: random.Random, world: World, folder: Path) -> Case:
    """`train RECIPE`, with and without a place for the model."""
    path = folder / "recipe.yaml"
    good = world.recipe.read_bytes()
    tree = world.recipe_tree
    if draw.random() < 0.5:  # deeper: most of a recipe's keys are the configuration's
        tree = tree | {"configuration": spoilt(draw, tree["configuration"])}
    else:
        tree = spoilt(draw, tree)
    path.write_bytes(damaged(draw, good) if draw.random() < 0.3 else yaml_of(draw, tree))
    words = ["train", "recipe.yaml"]
    if draw.random() < 0.5:
        words += ["--to", "OUT"]
    if draw.random() < 0.2:
        words += ["--test"]
    return Case(folder, words, "a recipe")
