"""Validating a recipe before anything slow, and loading its data.

Imports neither torch nor transformers.
"""

from __future__ import annotations

from pathlib import Path

from peftsearch.backbone.device import refuse_no_tf32, refuse_unknown_device
from peftsearch.backbone.loading.source import refuse_missing_model, refuse_missing_tokenizer
from peftsearch.backbone.savings.low_precision import low_precision
from peftsearch.errors import UsageError
from peftsearch.export.out_folder import refuse_taken
from peftsearch.export.recipe import Recipe
from peftsearch.task.sources.open import open_task
from peftsearch.task.task import Task

__all__ = ["open_recipe"]


def open_recipe(recipe: Recipe, out: Path | None, device: str, with_test: bool) -> Task:
    """Load the recipe's data, after checking its model, `out` and `device`. `with_test`: the data
    must have a test split, checked now rather than after training.
    """
    if out is not None:
        refuse_taken(out)
    refuse_unknown_device(device)
    if recipe.parsed().training.precision == "tf32":
        refuse_no_tf32(device)
    if recipe.low_rungs is not None:
        low_precision(recipe.low_rungs).refuse_if_missing()
    refuse_missing_model(recipe.model)
    for name in (recipe.tokenizer, recipe.target_tokenizer):
        if name is not None:
            refuse_missing_tokenizer(name)
    task = open_task(recipe.task)
    if with_test and task.test() is None:
        raise UsageError(f"task {task.name} has no labelled test split: leave out --test")
    return task
