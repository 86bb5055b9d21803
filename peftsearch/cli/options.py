"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from peftsearch.api.defaults import BOUNDS, DEFAULTS
from peftsearch.cli import completion

__all__ = [
    "Beams",
    "CohortOf",
    "Json",
    "Kind",
    "LabelColumn",
    "Languages",
    "LowRungs",
    "MaxTarget",
    "MetricName",
    "Model",
    "NoHeader",
    "Positive",
    "Separator",
    "StopHours",
    "StopMinutes",
    "Storage",
    "StudiesFolder",
    "StudyName",
    "TargetTokenizer",
    "TaskName",
    "Template",
    "TextColumns",
    "Threads",
    "TokenizerOf",
    "Without",
    "Workers",
    "bounds",
]


def bounds(name: str) -> dict[str, Any]:
    """Typer's `min` and `max` of an option that is a number."""
    return {"min": BOUNDS[name].least, "max": BOUNDS[name].most}


StudyName = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="Name of the study.", autocompletion=completion.studies),
]
StudiesFolder = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads the annotation at run time)
    typer.Option("--studies", metavar="DIR", help="Folder of the studies (default: ./studies)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
Model = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--model",
        metavar="M",
        help="Hub name, folder of a saved model, or demo:minilm.",
        autocompletion=completion.models,
    ),
]
Storage = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="ADDRESS",
        envvar="PEFTSEARCH_STORAGE",
        show_envvar=True,
        help="Database for workers on many machines: postgresql://USER@HOST/DATABASE "
        "(default: the journal in the study's folder).",
    ),
]
Workers = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        **bounds("workers"),
        help="Local processes (default: one a GPU with --device cuda, else 1).",
    ),
]
Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        **bounds("threads"), help=f"Threads of each worker (default: {DEFAULTS.threads})."
    ),
]
CohortOf = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--cohort",
        **bounds("cohort"),
        help="Configurations trained at once in each worker (default: measured on a GPU, 1 on a "
        "CPU).",
    ),
]
StopMinutes = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        **bounds("minutes"), help="Stop after so long, from when model and data are loaded."
    ),
]
StopHours = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(**bounds("hours"), help="The same in hours."),
]
TaskName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--task",
        metavar="T",
        help="owner/dataset:config, or demo:tweets, demo:bbc, …",
        autocompletion=completion.tasks,
    ),
]
TextColumns = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--text",
        metavar="COLUMN",
        help="Text column; twice for pairs, more often for a prompt of several.",
    ),
]
LabelColumn = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--label",
        "--target",
        metavar="COLUMN",
        help="Column of what is predicted: a label, a list of labels, a number or a text; several "
        "times for columns of 0 and 1, a label each.",
    ),
]
Kind = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="K",
        help="classification, multilabel, regression, seq2seq or causal (default: guessed).",
        autocompletion=completion.kinds,
    ),
]
MetricName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="M",
        help="What is optimised (default: the task's).",
        autocompletion=completion.metrics,
    ),
]
Positive = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="LABEL",
        help="The label that --metric f1 is of (default: the second of two).",
    ),
]
Template = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="T",
        help="What a writing model reads, with {text} for the text or columns: {question}.",
    ),
]
MaxTarget = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        **bounds("max_target"),
        help="Tokens a text to be written is cut to (default: from the data).",
    ),
]
Beams = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(**bounds("beams"), help="Beams that texts are written with (default: 1, greedy)."),
]
NoHeader = Annotated[
    bool, typer.Option("--no-header", help="Files without a line of names; columns are 1, 2, …")
]
Separator = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="C",
        help="Between the columns of tables of text: ';', '|', tab, …; space: after the first word "
        "(default: commas in .csv, tabs in .tsv).",
    ),
]
Languages = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="A,B", help="Source and target, for models that want them: en_XX,ro_RO."),
]
TokenizerOf = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--tokenizer", metavar="T", help="The tokenizer, if not beside the model."),
]
TargetTokenizer = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="T", help="The tokenizer of texts to be written, if they have their own."),
]
Without = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        help="Switch a saving off, to measure it: activations, rows, features, … Repeatable.",
        autocompletion=completion.optimisations,
    ),
]
LowRungs = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="P",
        help="Frozen layers below full length in int8 or bf16, where the CPU can (default: exact).",
    ),
]
