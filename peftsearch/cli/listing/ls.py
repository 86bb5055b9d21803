"""`peftsearch ls`: list spaces, methods, models, tasks, studies, and the design space."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Annotated, Any

import typer

from peftsearch.cli.listing import design, tasks
from peftsearch.cli.options import Json, Model, StudiesFolder
from peftsearch.cli.terminal.console import print_json, print_line, print_table

__all__ = ["ls"]


class What(enum.StrEnum):
    spaces = "spaces"
    methods = "methods"
    forms = "forms"
    places = "places"
    insertions = "insertions"
    compositions = "compositions"
    families = "families"
    models = "models"
    tasks = "tasks"
    kinds = "kinds"
    metrics = "metrics"
    studies = "studies"


def ls(
    what: Annotated[What, typer.Argument(help="What to list.")] = What.studies,
    model: Model = None,
    studies: StudiesFolder = None,
    json: Json = False,
) -> None:
    """List spaces, methods and places (for a --model with counts), the other dimensions of the
    design space, model families, models, tasks with their kinds and metrics, or studies.
    """
    listings: dict[What, Callable[[], list[dict[str, Any]]]] = {
        What.spaces: _spaces,
        What.methods: lambda: design.methods(model),
        What.forms: design.forms,
        What.places: lambda: design.places(model),
        What.insertions: design.insertions,
        What.compositions: design.compositions,
        What.families: design.families,
        What.models: _models,
        What.tasks: tasks.tasks,
        What.kinds: tasks.kinds,
        What.metrics: tasks.metrics,
        What.studies: lambda: _studies(studies),
    }
    rows = listings[what]()
    if json:
        print_json(f"ls.{what}", {str(what): rows})
        return
    if what is What.methods:
        rows = design.method_lines(rows)
    if rows:
        print_table(list(rows[0]), [[_cell(v) for v in row.values()] for row in rows])
    else:
        print_line(f"no {what}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _spaces() -> list[dict[str, Any]]:
    from peftsearch.space.file.shipped import shipped_spaces
    from peftsearch.space.space import load_space

    spaces = [load_space(name) for name in shipped_spaces()]
    return [
        {
            "space": space.name,
            "about": space.file.title,
            "structures": space.count_structures(),
            "tuned % from": space.file.budgets.tuned_pct.low,
            "to": space.file.budgets.tuned_pct.high,
        }
        for space in spaces
    ]


def _models() -> list[dict[str, Any]]:
    from peftsearch.backbone.families import FAMILIES

    rows = [{"model": "demo:minilm", "about": "MiniLM-L6, in the wheels of peftsearch[demo]"}]
    about = "any model of this family: a Hub name or a folder"
    return rows + [
        {"model": f"model type {name}", "about": f"{family.name}: {about}"}
        for family in FAMILIES
        for name in family.model_types
    ]


def _studies(studies: Any) -> list[dict[str, Any]]:
    from peftsearch.records.derive import count_states
    from peftsearch.records.folder import StudyFolder, study_names

    rows = []
    for name in study_names(studies):
        record = StudyFolder.open(name, studies).read()
        rows.append(
            {
                "study": name,
                "model": record.info.model,
                "task": record.info.task_name,
                "evaluated": count_states(record)["evaluated"],
                "frontier": len(record.front),
                "hypervolume": record.hypervolume,
            }
        )
    return rows
