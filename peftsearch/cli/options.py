"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

__all__ = ["Json", "LabelColumn", "Model", "StudiesFolder", "StudyName", "TaskName", "TextColumns"]

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="Name of the study.")]
StudiesFolder = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads the annotation at run time)
    typer.Option("--studies", metavar="DIR", help="Folder of the studies (default: ./studies)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
Model = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--model", metavar="M", help="Hub name, folder of a saved model, or demo:minilm."),
]
TaskName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--task", metavar="T", help="owner/dataset:config, demo:tweets or demo:bbc."),
]
TextColumns = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--text", metavar="COLUMN", help="Text column; twice for pairs."),
]
LabelColumn = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--label", metavar="COLUMN", help="Label column."),
]
