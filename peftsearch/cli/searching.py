"""Running `peftsearch search`: quick checks first, then load and search."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftsearch.api.create import create_from_options
from peftsearch.api.options import Options
from peftsearch.api.request import (
    limits_of,
    new_study,
    refuse_cohort_of_low_rungs,
    worker_settings,
)
from peftsearch.api.resume import study_to_resume
from peftsearch.api.values import parse_options
from peftsearch.cli.storage import without_storage
from peftsearch.cli.terminal.console import print_note

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder

__all__ = ["run_search_command"]


def run_search_command(parameters: Mapping[str, Any]) -> None:
    """Run `search` with the values of its parameters (described in `api/options.py`)."""
    options = parse_options(parameters)
    limits_of(options, wait_for_others=False)  # refused first
    if "dry_run" in options:
        _dry_run(options)
        return
    folder = (
        study_to_resume(options)
        if "resume" in options
        else create_from_options(options, print_note, _resume_command())
    )
    _search(folder, options)


def _search(folder: StudyFolder, options: Options) -> None:
    from peftsearch.cli.watch import watch_local
    from peftsearch.records.storage_name import is_database
    from peftsearch.workers.run import run_search

    limits = limits_of(options, wait_for_others=is_database(folder.read_info().storage))
    workers, as_json = options.get("workers"), "json" in options
    watch_local(run_search, folder, limits, workers, worker_settings(options), as_json)


def _resume_command() -> str:
    """The current command line with `--resume` added."""
    return " ".join(map(shlex.quote, ["peftsearch", *without_storage(sys.argv[1:]), "--resume"]))


def _dry_run(options: Options) -> None:
    from peftsearch.cli.dry_run import print_dry_run, print_dry_run_of

    if "resume" in options:
        print_dry_run_of(study_to_resume(options), options)
        return
    refuse_cohort_of_low_rungs(options.get("cohort"), options.get("low_rungs"))
    print_dry_run(new_study(options), options)
