"""The status of a study as a dictionary, for `peftsearch status --json` and `Study.status()`.

Imports neither pandas nor torch, so that `peftsearch status` is fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from peftsearch.records.derive import count_states

if TYPE_CHECKING:
    from peftsearch.disk.locks import Owner
    from peftsearch.records.records import StudyRecord

__all__ = ["status_of"]


def status_of(record: StudyRecord, owner: Owner | None) -> dict[str, Any]:
    """Names, trials by state, failures by cause, frontier, hypervolume in [0, 1], CPU seconds, the
    share of time spent evaluating, the most memory of a worker; `owner` is the process that
    searches the study.
    """
    info, results = record.info, record.results
    causes: dict[str, int] = {}
    for result in results:
        if result.state == "failed":
            cause = result.cause or "unknown"
            causes[cause] = causes.get(cause, 0) + 1
    wall_s = sum(result.wall_s for result in results)
    return {
        "study": info.name,
        "model": info.model,
        "task": info.task_name,
        "space": info.space,
        "low_rungs": info.low_rungs,
        "sampler": info.sampler,
        "stopping": info.stopping,
        "landmarks": info.landmarks,
        "searched_by": str(owner) if owner else None,
        "counts": count_states(record),
        "failed_by_cause": causes,
        "origins": {
            origin: sum(result.origin == origin for result in results)
            for origin in ("landmark", "seed", "sampled")
        },
        "frontier_points": len(record.front),
        "hypervolume": record.hypervolume,
        "cpu_s": round(sum(result.cpu_s for result in results), 1),
        "evaluation_share": round(sum(result.eval_s for result in results) / max(wall_s, 1e-9), 4),
        "peak_rss_bytes": _largest(result.peak_rss_bytes for result in results),
        "peak_device_bytes": _largest(result.peak_device_bytes for result in results),
    }


def _largest(values: Iterable[int | None]) -> int | None:
    """The largest of the known values."""
    return max((value for value in values if value is not None), default=None)
