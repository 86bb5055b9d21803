"""Files derived from a study's records: trials.csv and frontier.json."""

from __future__ import annotations

from typing import Any

from peftsearch.disk.atomic import write_atomic
from peftsearch.disk.json_records import json_text
from peftsearch.records.folder import StudyFolder
from peftsearch.records.rates import Rates
from peftsearch.records.records import COSTS, StudyRecord
from peftsearch.records.trials_csv import derived_trials_csv

__all__ = ["frontier_document", "write_derived"]


def write_derived(folder: StudyFolder, record: StudyRecord) -> None:
    """Write trials.csv and frontier.json."""
    write_atomic(folder.trials_csv_path, derived_trials_csv(record))
    write_atomic(folder.frontier_path, json_text(frontier_document(record)))


def frontier_document(record: StudyRecord) -> dict[str, Any]:
    """frontier.json: the points with the metric, the reference of the hypervolume and counts."""
    info = record.info
    by_number = {result.number: result for result in record.results}
    fields = (
        "number",
        "method",
        "origin",
        "description",
        "metric",
        "metric_se",
        "tuned_pct",
        *COSTS,
        "configuration_hash",
    )
    return {
        "study": info.name,
        "model": info.model,
        "task": info.task_name,
        "metric": info.metric.model_dump(),
        "hypervolume": record.hypervolume,
        "hypervolume_reference": {
            "lo_pct": info.budget_lo_pct,
            "hi_pct": info.budget_hi_pct,
            "worst": info.metric.worst,
            "best": info.metric.best,
        },
        "counts": count_states(record),
        "points": [
            {key: getattr(by_number[point.number], key) for key in fields}
            | Rates.of(by_number[point.number].configuration).to_json()
            for point in record.front
        ],
    }


def count_states(record: StudyRecord) -> dict[str, int]:
    """The number of trials in each state; `evaluated` counts those that were trained."""
    states = [result.state for result in record.results]
    counts = {s: states.count(s) for s in ("full", "stopped", "failed", "duplicate", "infeasible")}
    under_way = {"running": record.running, "waiting": record.waiting}
    return {"evaluated": counts["full"] + counts["stopped"], **counts, **under_way}
