"""`peftsearch export`: write one point of a frontier to a folder or file."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from peftsearch.cli.open_study import open_folder
from peftsearch.cli.options import Json, StudiesFolder, StudyName
from peftsearch.cli.terminal.console import print_json, print_line

__all__ = ["export"]


class Format(enum.StrEnum):
    native = "native"
    recipe = "recipe"
    peft = "peft"


def export(
    study: StudyName,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder; for a recipe, a YAML file.")],
    at: Annotated[
        str,
        typer.Option(
            help="Point to export: best, knee, a limit on tuned % (0.5), or a trial ('#28')."
        ),
    ] = "best",
    to: Annotated[
        Format,
        typer.Option(
            help="native: for peftsearch.load; recipe: for train; peft: if peft supports it."
        ),
    ] = Format.native,
    studies: StudiesFolder = None,
    json: Json = False,
) -> None:
    """Export a point: weights to load, a recipe to repeat, or an adapter for peft."""
    from peftsearch.export.out_folder import refuse_taken_out

    refuse_taken_out(out, to.value)
    from peftsearch.export.study_point import export_point  # with Optuna

    point = export_point(open_folder(study, studies), at, to.value, out)
    if json:
        facts = {"trial": point.number, "tuned_pct": point.tuned_pct, "metric": point.metric}
        print_json("export", {"out": str(out), "format": to.value, **facts})
        return
    print_line(f"{out}: {point.description}")
    print_line(
        f"trial {point.number}, {point.tuned_pct:.4g} % tuned, validation {point.metric:.4f}"
    )
