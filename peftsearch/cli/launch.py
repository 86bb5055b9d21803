"""`peftsearch launch`: start workers of a study on the machines of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from peftsearch.api.request import seconds_of
from peftsearch.cli.options import (
    CohortOf,
    Json,
    StopHours,
    StopMinutes,
    Storage,
    StudiesFolder,
    StudyName,
    Threads,
)
from peftsearch.cli.worker import StopAt, folder_to_join
from peftsearch.errors import UsageError

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder
    from peftsearch.workers.launchers.ray.cluster import Share
    from peftsearch.workers.launchers.ray.job import WorkerJob
    from peftsearch.workers.limits import Limits

__all__ = ["launch"]

launch = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@launch.callback()
def workers_on_a_cluster() -> None:
    """Start workers of a study on a cluster, and replace those that die."""


@launch.command()
def ray(
    study: StudyName,
    workers: Annotated[int, typer.Option(min=1, max=100_000, help="Total number of workers.")],
    storage: Storage = None,
    studies: StudiesFolder = None,
    address: Annotated[
        str, typer.Option(metavar="A", help="The cluster: auto, or HOST:PORT of its head.")
    ] = "auto",
    gpus_each: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=0,
            max=1,
            help="Share of a GPU that each worker takes (default: 1 if the study is on cuda, "
            "else 0).",
        ),
    ] = None,
    cpus_each: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, help="CPUs that each worker takes (default: as --threads)."),
    ] = None,
    trials: StopAt = None,
    minutes: StopMinutes = None,
    hours: StopHours = None,
    threads: Threads = None,
    cohort: CohortOf = None,
    json: Json = False,
) -> None:
    """Start workers on the nodes of a Ray cluster. Run it on one of the nodes."""
    from peftsearch.cli.watch import watch
    from peftsearch.workers.launchers.ray.cluster import Share
    from peftsearch.workers.launchers.ray.workers import run_on_ray
    from peftsearch.workers.limits import Limits

    limits = Limits(trials, seconds_of(minutes, hours), wait_for_others=True)
    folder = folder_to_join(study, storage, studies)
    if gpus_each is None:
        gpus_each = 1.0 if folder.read_info().device.startswith("cuda") else 0.0
    share = Share(cpus_each if cpus_each is not None else threads or 1, gpus_each)
    job = _job(folder, limits, share, threads, cohort)
    watch(
        lambda on_event: run_on_ray(address, job, workers, share, on_event),
        *(folder, limits, workers, json),
    )


def _job(
    folder: StudyFolder, limits: Limits, share: Share, threads: int | None, cohort: int | None
) -> WorkerJob:
    """The job of every worker; UsageError for a study with a journal on this machine."""
    import os
    from dataclasses import replace

    from peftsearch.records.storage_name import VARIABLE, is_database
    from peftsearch.study.storage.database.copies import target_of
    from peftsearch.workers.launchers.ray.job import WorkerJob
    from peftsearch.workers.limits import WorkerSettings

    info = folder.read_info()
    if not is_database(info.storage):
        raise UsageError(
            f"study '{info.name}' keeps a journal, which works on one machine only: "
            f"peftsearch worker {info.name} --workers N; "
            "for a cluster, start a study with --storage postgresql://…"
        )
    device = "cuda" if share.gpus else "cpu"
    return WorkerJob(
        worker=0,
        study=info.name,
        storage=os.environ.get(VARIABLE) or info.storage,
        studies=folder.root.parent,
        limits=replace(limits, trials=limits.trials or target_of(folder)),
        settings=WorkerSettings(threads or 1, cohort, device),
    )
