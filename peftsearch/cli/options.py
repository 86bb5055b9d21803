"""Options shared by several commands."""

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
        help="Local processes (default: one per GPU with --device cuda, else 1).",
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
        **bounds("minutes"), help="Time limit, counted from when model and data are loaded."
    ),
]
StopHours = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(**bounds("hours"), help="Time limit in hours."),
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
        help="Text column; repeat for pairs, or for a prompt of several columns.",
    ),
]
LabelColumn = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--label",
        "--target",
        metavar="COLUMN",
        help="Target column: a label, a list of labels, a number or a text; repeat for columns of "
        "0 and 1, one per label.",
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
        help="Metric to optimise (default: the task's).",
        autocompletion=completion.metrics,
    ),
]
Positive = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="LABEL",
        help="Positive label for --metric f1 (default: the second of two).",
    ),
]
Template = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="T",
        help="Prompt of a generating model, with {text} for the text or columns: {question}.",
    ),
]
MaxTarget = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        **bounds("max_target"),
        help="Maximum tokens of a target text (default: from the data).",
    ),
]
Beams = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(**bounds("beams"), help="Beams in generation (default: 1, greedy)."),
]
NoHeader = Annotated[
    bool, typer.Option("--no-header", help="Files have no header line; columns are 1, 2, …")
]
Separator = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="C",
        help="Column separator of text files: ';', '|', tab, …; space: after the first word "
        "(default: commas in .csv, tabs in .tsv).",
    ),
]
Languages = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="A,B", help="Source and target language, for models that need them: en_XX,ro_RO."
    ),
]
TokenizerOf = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--tokenizer", metavar="T", help="Tokenizer, if not in the model's folder."),
]
TargetTokenizer = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(metavar="T", help="Tokenizer of the target texts, if it is a different one."),
]
Without = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        help="Switch off an optimisation, to measure it: activations, rows, … Repeatable.",
        autocompletion=completion.optimisations,
    ),
]
LowRungs = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="P",
        help="Precision of frozen layers below full length: int8 or bf16 (default: exact).",
    ),
]
