"""`peftsearch train`: train the configuration of a recipe and save the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from peftsearch.cli.options import Json, bounds
from peftsearch.cli.terminal.console import print_json, print_line, print_note

__all__ = ["train"]


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe: peftsearch export --to recipe.")],
    to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="OUT", help="Folder for the trained model (native format)."),
    ] = None,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(**bounds("seed"), help="Seed (default: the recipe's)."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    test: Annotated[
        bool, typer.Option("--test", help="Also evaluate on the test split at the end.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a recipe's configuration and evaluate it."""
    from peftsearch.export.recipe import Recipe
    from peftsearch.export.recipe_task import open_recipe

    asked = Recipe.read(recipe)
    if seed is not None:
        asked = asked.model_copy(update={"seed": seed})
    task = open_recipe(asked, to, device, test)
    from peftsearch.backbone.device import use_device
    from peftsearch.export.retrain import retrain  # seconds, of importing torch

    use_device(device)
    outcome = retrain(asked, to, threads, device, test, print_note, task)
    if json:
        print_json("train", outcome)
        return
    for key, value in outcome.items():
        print_line(
            f"{key.replace('_', ' ')}: {value:.4f}"
            if isinstance(value, float)
            else f"{key}: {value}"
        )
