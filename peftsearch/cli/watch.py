"""Watching workers to the end, then the frontier: what `search`, `worker` and `launch` share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from peftsearch.cli.open_study import studies_flag
from peftsearch.cli.terminal.console import say
from peftsearch.errors import Interrupted, NothingFeasible
from peftsearch.wording import agree, counted

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder
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
    from peftsearch.backbone.devices import workers_here

    device = means.device or folder.read_info().device
    count = workers or workers_here(device)
    os.environ.setdefault("OMP_NUM_THREADS", str(means.threads))
    idle = len(os.sched_getaffinity(0)) - count * means.threads
    if idle > 0 and device == "cpu":
        say(
            f"{counted(idle, 'more core')} {agree(idle, 'is', 'are')} idle: --workers "
            f"{count + idle} tries more configurations"
        )
    watch(lambda hear: run(folder, limits, count, means, hear), folder, limits, count, as_json)


def watch(
    run: Callable[[Callable[[Any], None]], bool],
    folder: StudyFolder,
    limits: Limits,
    workers: int,
    as_json: bool,
) -> None:
    """`run` the workers, show their progress, then print the frontier."""
    from peftsearch.api.progress.progress import Progress
    from peftsearch.cli.frontier import print_frontier
    from peftsearch.cli.terminal.interrupt import unheard
    from peftsearch.records.derive import write_derived
    from peftsearch.report.html import write_report
    from peftsearch.study.storage.database.copies import bring_home
    from peftsearch.study.unfinished import read_study

    with unheard(), Progress(folder, limits, workers) as progress:
        try:
            interrupted = run(progress.hear)
        except KeyboardInterrupt:  # before there was a worker to stop
            interrupted = True
    bring_home(folder, say)
    record = read_study(folder)
    write_derived(folder, record)
    write_report(record, folder.report_path, folder.read_environment(), folder)
    found = any(r.state == "full" for r in record.results)
    if found:
        print_frontier(folder, record, as_json)
    go_on = f"peftsearch search --study {folder.name} --resume{studies_flag(folder)}"
    if progress.fatal is not None:
        raise progress.fatal
    if record.waiting and not interrupted and found:
        say(f"{counted(record.waiting, 'trial')} cut off and saved; go on with: {go_on}")
    if interrupted:
        raise Interrupted(f"interrupted; everything is saved. Go on with: {go_on}")
    if not found:
        raise NothingFeasible(
            f"no configuration reached full length ({counted(len(record.results), 'trial')} ended, "
            f"{record.waiting} cut off); go on with: {go_on}"
        )
