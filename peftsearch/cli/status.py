"""`peftsearch status`: progress of a study, and the process that searches it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftsearch.cli.open_study import open_folder
from peftsearch.cli.options import Json, StudiesFolder, StudyName
from peftsearch.cli.terminal.console import print_json, print_table
from peftsearch.wording import agree, byte_size, counted

if TYPE_CHECKING:
    from peftsearch.disk.locks import Owner

__all__ = ["status"]


def status(study: StudyName, studies: StudiesFolder = None, json: Json = False) -> None:
    """Print the progress of a study, and the process that searches it."""
    from peftsearch.api.status import status_of
    from peftsearch.study.read_study import read_study

    folder = open_folder(study, studies)
    record = read_study(folder)
    info, owner = record.info, folder.search_lock().owner()
    facts = status_of(record, owner)
    if json:
        print_json("status", facts)
        return
    ended = ", ".join(
        f"{count} {state}" for state, count in facts["counts"].items() if state != "evaluated"
    )
    points = counted(facts["frontier_points"], "point")
    failures = ", ".join(f"{count} × {cause}" for cause, count in facts["failed_by_cause"].items())
    rows = [
        ("study", info.name),
        ("model", f"{info.model} ({info.body_parameters:,} parameters)"),
        ("task", f"{info.task_name}, {counted(info.train_examples, 'training example')}"),
        ("space", f"{info.space}, tuned % {info.budget_lo_pct:g} to {info.budget_hi_pct:g}"),
        *([("low rungs", f"frozen layers in {info.low_rungs}")] if info.low_rungs else []),
        ("sampler", info.sampler + ("" if info.stopping else ", no trial is stopped")),
        ("landmarks", info.landmarks),
        ("state", _state(info.storage, owner, record.running)),
        ("trials", ended),
        *([("", _resume_command(info.name, record.waiting, studies))] if record.waiting else []),
        *([("failures", failures)] if failures else []),
        ("frontier", f"{points}, hypervolume {facts['hypervolume']:.4f}"),
        (
            "cost",
            f"{facts['cpu_s'] / 60:.1f} CPU minutes, "
            f"{facts['evaluation_share']:.0%} of it evaluation",
        ),
        *([("memory", _memory(facts))] if facts["peak_rss_bytes"] is not None else []),
    ]
    print_table(("", ""), rows)


def _state(storage: str, owner: Owner | None, running: int) -> str:
    """The process searching the study on this machine, and for a database its running trials."""
    from peftsearch.records.storage_name import is_database

    here = f"being searched by {owner}" if owner else "no search is running"
    if not is_database(storage):
        return here
    return f"in {storage}, {counted(running, 'trial')} under way; on this machine {here}"


def _resume_command(study: str, waiting: int, studies: Path | None) -> str:
    where = f" --studies {studies}" if studies is not None else ""
    command = f"peftsearch search --study {study} --resume{where}"
    return f"{waiting} {agree(waiting, 'waits', 'wait')} to be continued: {command}"


def _memory(facts: Mapping[str, Any]) -> str:
    """The most memory of a worker."""
    device = facts["peak_device_bytes"]
    on_device = "" if device is None else f", {byte_size(device)} on its device"
    return f"at most {byte_size(facts['peak_rss_bytes'])} resident in a worker{on_device}"
