"""`peftsearch search`: begin or continue a search, print the frontier, write the report."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from peftsearch.cli.asked import (
    default_name,
    existing_study,
    languages_of,
    refuse_cohort_of_low_rungs,
    refuse_other_low_rungs,
    task_spec,
)
from peftsearch.cli.completion import spaces
from peftsearch.cli.completion import studies as studies_there
from peftsearch.cli.console import say
from peftsearch.cli.options import (
    LARGEST_SEED,
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
)
from peftsearch.cli.storage import use_storage, without_storage
from peftsearch.errors import UsageError

if TYPE_CHECKING:
    from peftsearch.search.create import NewStudy
    from peftsearch.search.folder import StudyFolder

__all__ = ["search", "seconds_of"]

DEFAULT_SPACE = "unified"


def search(
    space: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            help="Shipped space or YAML file (default: unified).", autocompletion=spaces
        ),
    ] = None,
    model: Model = None,
    task: TaskName = None,
    train: Annotated[Optional[str], typer.Option(help="Training file.")] = None,  # noqa: UP045
    eval_file: Annotated[
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
    template: Template = None,
    no_header: NoHeader = False,
    beams: Beams = None,
    languages: Languages = None,
    study: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Name of the study (default: SPACE-TASK).", autocompletion=studies_there),
    ] = None,
    studies: StudiesFolder = None,
    trials: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Stop at so many evaluated configurations."),
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
            help="Where workers of several machines hand one another checkpoints: a folder, "
            "s3://… or gs://…",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of sampling and training.")
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    max_length: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=4, help="Tokens a text is cut to (default: from the data)."),
    ] = None,
    max_target: MaxTarget = None,
    tokenizer: TokenizerOf = None,
    target_tokenizer: TargetTokenizer = None,
    train_examples: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=2, help="Train on a fixed random subset."),
    ] = None,
    eval_examples: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=2, help="Evaluate on a fixed random subset."),
    ] = None,
    eval_limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=2, help="Examples evaluated below full length (default: the space's)."),
    ] = None,
    without: Without = None,
    low_rungs: LowRungs = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an existing study.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Sample configurations, train nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Search a space for the best configuration at every parameter budget."""
    from peftsearch.backbone.device import checked_device
    from peftsearch.cli.watch import watch_local
    from peftsearch.search.create import NewStudy
    from peftsearch.search.limits import Limits, Means
    from peftsearch.search.run import run_search
    from peftsearch.search.storage import JOURNAL, is_database
    from peftsearch.space.space import load_space

    asked_task: dict[str, Any] = {
        "name": task,
        "train": train,
        "eval": eval_file,
        "test": test,
        "text": tuple(text or ()),
        "label": label,
        "train_examples": train_examples,
        "eval_examples": eval_examples,
        "kind": kind,
        "metric": metric,
        "template": template,
        "max_target": max_target,
        "languages": languages_of(languages),
        "header": False if no_header else None,
        "generation": None if beams is None else {"beams": beams},
    }
    spec = task_spec(asked_task, seed)
    refuse_cohort_of_low_rungs(cohort, low_rungs)
    seconds = seconds_of(minutes, hours)
    if resume:
        folder = existing_study(study, studies, space, model, spec)
        refuse_other_low_rungs(folder, low_rungs)
        refuse_cohort_of_low_rungs(cohort, folder.read_info().low_rungs)
        if storage is not None and is_database(folder.read_info().storage):
            use_storage(storage)
    else:
        loaded = load_space(space or DEFAULT_SPACE)
        recommended = loaded.file.recommended
        if recommended is not None and task is None and train is None:
            spec = task_spec(asked_task, seed, recommended.task)
        asked = NewStudy(
            name=default_name(loaded.name, spec) if study is None else study,
            space=loaded,
            space_name=space or DEFAULT_SPACE,
            model=_required_model(model or (recommended.model if recommended else None)),
            task=spec,
            seed=seed,
            device=checked_device(device),
            max_length=max_length or (recommended.max_length if recommended else None),
            rung_examples=eval_limit,
            tokenizer=tokenizer,
            target_tokenizer=target_tokenizer,
            without=tuple(without or ()),
            low_rungs=low_rungs,
            storage=JOURNAL if storage is None else use_storage(storage),
            artifacts=artifacts,
        )
        if dry_run:
            from peftsearch.cli.dry_run import print_dry_run

            print_dry_run(asked.space, asked.model, json)
            return
        folder = _begin(asked, studies)
    info = folder.read_info()
    limits = Limits(trials, seconds, waits=is_database(info.storage))
    means = Means(threads or 1, cohort)
    watch_local(run_search, folder, limits, workers, means, json)


def seconds_of(minutes: float | None, hours: float | None) -> float | None:
    if minutes is not None and hours is not None:
        raise UsageError("give --minutes or --hours, not both")
    seconds = minutes * 60 if minutes is not None else hours * 3600 if hours is not None else None
    if seconds is not None and not math.isfinite(seconds):
        raise UsageError("--minutes and --hours want a number; leave both out for no limit")
    return seconds


def _required_model(model: str | None) -> str:
    if model is None:
        raise UsageError("no model: give --model NAME (a Hub name, a folder, or demo:minilm)")
    return model


def _begin(asked: NewStudy, studies: Path | None) -> StudyFolder:
    from peftsearch.search.artifacts import open_artifacts
    from peftsearch.search.create import create_study
    from peftsearch.search.folder import StudyFolder
    from peftsearch.search.storage import StorageAddress, is_database
    from peftsearch.search.study_copy import refuse_taken

    go_on = " ".join(map(shlex.quote, ["peftsearch", *without_storage(sys.argv[1:]), "--resume"]))
    if is_database(asked.storage):
        StudyFolder.new(asked.name, studies, go_on)
        refuse_taken(asked.name, StorageAddress.of(asked.storage))
        if asked.artifacts is not None:
            open_artifacts(asked.artifacts, "").try_out()
    elif asked.artifacts is not None:
        raise UsageError("--artifacts is for workers on many machines: give --storage, too")
    return create_study(asked, studies, go_on, say)
