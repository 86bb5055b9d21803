"""`peftsearch search`: start or resume a search, print the frontier, write the report."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from peftsearch.api.defaults import DEFAULTS
from peftsearch.cli.completion import landmarks as landmark_names
from peftsearch.cli.completion import samplers, spaces
from peftsearch.cli.completion import studies as studies_there
from peftsearch.cli.options import (
    Beams,
    CohortOf,
    Json,
    Kind,
    LabelColumn,
    Languages,
    LowRungs,
    MaxTarget,
    MetricName,
    Model,
    NoHeader,
    Positive,
    Separator,
    StopHours,
    StopMinutes,
    Storage,
    StudiesFolder,
    TargetTokenizer,
    TaskName,
    Template,
    TextColumns,
    Threads,
    TokenizerOf,
    Without,
    Workers,
    bounds,
)

__all__ = ["search"]


def search(
    space: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            help=f"Shipped space or YAML file (default: {DEFAULTS.space}).", autocompletion=spaces
        ),
    ] = None,
    model: Model = None,
    task: TaskName = None,
    train: Annotated[Optional[str], typer.Option(help="Training file.")] = None,  # noqa: UP045
    eval: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--eval", help="Validation file."),
    ] = None,
    test: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Test file; no search reads it."),
    ] = None,
    text: TextColumns = None,
    label: LabelColumn = None,
    kind: Kind = None,
    metric: MetricName = None,
    positive: Positive = None,
    template: Template = None,
    no_header: NoHeader = False,
    separator: Separator = None,
    beams: Beams = None,
    languages: Languages = None,
    study: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Name of the study (default: SPACE-TASK).", autocompletion=studies_there),
    ] = None,
    studies: StudiesFolder = None,
    trials: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(**bounds("trials"), help="Stop after this many evaluated configurations."),
    ] = None,
    minutes: StopMinutes = None,
    hours: StopHours = None,
    workers: Workers = None,
    threads: Threads = None,
    cohort: CohortOf = None,
    storage: Storage = None,
    artifacts: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="PLACE",
            help="Store through which workers on several machines share checkpoints: a folder, "
            "s3://… or gs://…",
        ),
    ] = None,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            **bounds("seed"), help=f"Seed of sampling and training (default: {DEFAULTS.seed})."
        ),
    ] = None,
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help=f"cpu, cuda or cuda:N (default: {DEFAULTS.device}; on resume, the study's)."
        ),
    ] = None,
    max_length: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            **bounds("max_length"), help="Maximum tokens of a text (default: from the data)."
        ),
    ] = None,
    max_target: MaxTarget = None,
    tokenizer: TokenizerOf = None,
    target_tokenizer: TargetTokenizer = None,
    train_examples: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(**bounds("train_examples"), help="Train on a fixed random subset."),
    ] = None,
    eval_examples: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(**bounds("eval_examples"), help="Evaluate on a fixed random subset."),
    ] = None,
    eval_limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            **bounds("eval_limit"),
            help="Examples evaluated below full length (default: the space's).",
        ),
    ] = None,
    without: Without = None,
    low_rungs: LowRungs = None,
    sampler: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="S",
            help=f"Proposes configurations: tpe, nsga2 or random (default: {DEFAULTS.sampler}, "
            "which is tpe).",
            autocompletion=samplers,
        ),
    ] = None,
    no_stopping: Annotated[
        bool, typer.Option("--no-stopping", help="Train every trial to full length.")
    ] = False,
    landmarks: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="L",
            help="Published methods to train for comparison: none, lora (at three sizes, its rate "
            "tuned; then the space's own) or all of the space's (default: lora if the space "
            "contains it and is no recipe, else all).",
            autocompletion=landmark_names,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an existing study.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Sample configurations, train nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Search a space for the best configuration at every parameter budget."""
    options = dict(locals())
    from peftsearch.cli.searching import run_search_command

    run_search_command(options)
