"""`peftsearch search`: begin or continue a search, print the frontier, write the report."""

from __future__ import annotations

import math
import os
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
from peftsearch.cli.console import say
from peftsearch.cli.options import (
    LARGEST_SEED,
    Beams,
    Json,
    Kind,
    LabelColumn,
    Languages,
    LowRungs,
    MaxTarget,
    MetricName,
    Model,
    NoHeader,
    StudiesFolder,
    TargetTokenizer,
    TaskName,
    Template,
    TextColumns,
    TokenizerOf,
    Without,
)
from peftsearch.errors import NothingFeasible, UsageError

if TYPE_CHECKING:
    from peftsearch.search.create import NewStudy
    from peftsearch.search.folder import StudyFolder
    from peftsearch.search.worker import Limits, Means

__all__ = ["search"]

DEFAULT_SPACE = "unified"


def search(
    space: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="Shipped space or YAML file (default: unified)."),
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
        typer.Option(help="Name of the study (default: SPACE-TASK)."),
    ] = None,
    studies: StudiesFolder = None,
    trials: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Stop at so many evaluated configurations."),
    ] = None,
    minutes: Annotated[Optional[float], typer.Option(min=0, help="Stop after so long.")] = None,  # noqa: UP045
    hours: Annotated[Optional[float], typer.Option(min=0, help="Stop after so long.")] = None,  # noqa: UP045
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Local processes.")] = 1,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, max=1024, help="Threads of each worker (default: 1 on a CPU)."),
    ] = None,
    cohort: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=1,
            max=1024,
            help="Configurations trained at once in each worker (default: measured on a GPU, 1 on "
            "a CPU).",
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
    from peftsearch.search.create import NewStudy
    from peftsearch.search.worker import Limits, Means
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
    limits = Limits(trials, _seconds(minutes, hours))
    refuse_cohort_of_low_rungs(cohort, low_rungs)
    if resume:
        folder = existing_study(study, studies, space, model, spec)
        refuse_other_low_rungs(folder, low_rungs)
        refuse_cohort_of_low_rungs(cohort, folder.read_info().low_rungs)
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
        )
        if dry_run:
            from peftsearch.cli.dry_run import print_dry_run

            print_dry_run(asked.space, asked.model, json)
            return
        folder = _begin(asked, studies)
    _search(folder, limits, workers, Means(threads or 1, cohort), json)


def _seconds(minutes: float | None, hours: float | None) -> float | None:
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
    from peftsearch.search.create import create_study

    go_on = " ".join(map(shlex.quote, ["peftsearch", *sys.argv[1:], "--resume"]))
    return create_study(asked, studies, go_on, say)


def _search(folder: StudyFolder, limits: Limits, workers: int, means: Means, as_json: bool) -> None:
    from peftsearch.cli.frontier import print_frontier
    from peftsearch.cli.progress import Progress
    from peftsearch.errors import Interrupted
    from peftsearch.search.derive import write_derived
    from peftsearch.search.run import run_search

    os.environ.setdefault("OMP_NUM_THREADS", str(means.threads))
    idle = len(os.sched_getaffinity(0)) - workers * means.threads
    if idle > 0 and folder.read_info().device == "cpu":
        say(f"{idle} more cores are idle: --workers {workers + idle} tries more configurations")
    with Progress(folder, limits, workers) as progress:
        interrupted = run_search(folder, limits, workers, means, progress.hear)
    record = folder.read()
    write_derived(folder, record)
    from peftsearch.report.html import write_report

    write_report(record, folder.report_path, folder.read_environment(), folder)
    if any(r.state == "full" for r in record.results):
        print_frontier(folder, record, as_json)
    go_on = f"peftsearch search --study {folder.name} --resume"
    if progress.fatal is not None:
        raise progress.fatal
    if interrupted:
        raise Interrupted(f"interrupted; everything is saved. Go on with: {go_on}")
    if not any(r.state == "full" for r in record.results):
        raise NothingFeasible(
            f"no configuration reached full length ({len(record.results)} ended, "
            f"{record.running} cut off); go on with: {go_on}"
        )
