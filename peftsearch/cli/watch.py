"""Watching workers to the end, then the frontier: what `search`, `worker` and `launch` share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from peftsearch.cli.console import say
from peftsearch.cli.opened import studies_flag
from peftsearch.errors import Interrupted, NothingFeasible

if TYPE_CHECKING:
    from peftsearch.search.folder import StudyFolder
    from peftsearch.search.limits import Limits, Means

__all__ = ["watch", "watch_local"]


def watch_local(
    run: Callable[[StudyFolder, Limits, int, Means, Callable[[Any], None]], bool],
    folder: StudyFolder,
    limits: Limits,
    workers: int | None,
    means: Means,
    as_json: bool,
) -> None:
    """`run` workers of this machine (None: as many as make sense), and `watch` them."""
    from peftsearch.search.devices import workers_here

    device = means.device or folder.read_info().device
    count = workers or workers_here(device)
    os.environ.setdefault("OMP_NUM_THREADS", str(means.threads))
    idle = len(os.sched_getaffinity(0)) - count * means.threads
    if idle > 0 and device == "cpu":
        say(f"{idle} more cores are idle: --workers {count + idle} tries more configurations")
    watch(lambda hear: run(folder, limits, count, means, hear), folder, limits, count, as_json)


def watch(
    run: Callable[[Callable[[Any], None]], bool],
    folder: StudyFolder,
    limits: Limits,
    workers: int,
    as_json: bool,
) -> None:
    """`run` so many workers, show what they do, print the frontier."""
    from peftsearch.cli.frontier import print_frontier
    from peftsearch.cli.progress import Progress
    from peftsearch.report.html import write_report
    from peftsearch.search.derive import write_derived
    from peftsearch.search.study_copy import bring_home

    with Progress(folder, limits, workers) as progress:
        interrupted = run(progress.hear)
    bring_home(folder, say)
    record = folder.read()
    write_derived(folder, record)
    write_report(record, folder.report_path, folder.read_environment(), folder)
    found = any(r.state == "full" for r in record.results)
    if found:
        print_frontier(folder, record, as_json)
    go_on = f"peftsearch search --study {folder.name} --resume{studies_flag(folder)}"
    if progress.fatal is not None:
        raise progress.fatal
    if interrupted:
        raise Interrupted(f"interrupted; everything is saved. Go on with: {go_on}")
    if not found:
        raise NothingFeasible(
            f"no configuration reached full length ({len(record.results)} ended, "
            f"{record.running} cut off); go on with: {go_on}"
        )
