"""Rows of the report's tables: the frontier, and all trials."""

from __future__ import annotations

from typing import Any

from peftsearch.records.rates import Rates
from peftsearch.records.records import StudyRecord, TrialResult
from peftsearch.records.serving import serves_as
from peftsearch.wording import byte_size

__all__ = ["frontier_rows", "served", "trial_rows"]


def frontier_rows(record: StudyRecord) -> list[dict[str, Any]]:
    """The best configuration at every tuned %, with the command that exports it."""
    by_number = {result.number: result for result in record.results}
    rows = []
    for point in record.front:
        row = _row(by_number[point.number])
        command = f"peftsearch export {record.info.name} --at '#{point.number}' --to native OUT"
        rows.append(row | {"command": command})
    return rows


def trial_rows(record: StudyRecord) -> list[dict[str, Any]]:
    """Every trial, by number; `on_front` marks the frontier."""
    front = {point.number for point in record.front}
    return [_row(result) | {"on_front": result.number in front} for result in record.results]


def _row(result: TrialResult) -> dict[str, Any]:
    return {
        "number": result.number,
        "method": result.method or "",
        "description": result.description,
        "rates": str(Rates.of(result.configuration)).removeprefix("lr "),
        "state": _state(result),
        "metric": result.metric,
        "metric_se": result.metric_se,
        "tuned_pct": result.tuned_pct,
        "tuned_parameters": result.tuned_parameters,
        "budget_pct": result.budget_pct,
        "wall_s": result.wall_s,
        "served": served(result),
    }


def served(result: TrialResult) -> str:
    """`plain LoRA, 12.3 kB`: the way to serve a result, and the bytes of its adapter; nothing of
    results recorded before it was known.
    """
    way = serves_as(result)
    if way is None or result.adapter_bytes is None:
        return ""
    return f"{way}, {byte_size(result.adapter_bytes)}"


def _state(result: TrialResult) -> str:
    if result.state == "duplicate":
        return f"same as #{result.same_as}"
    if result.state == "failed":
        return f"failed: {result.cause}" if result.cause else "failed"
    return {"full": "full length", "stopped": "stopped early"}.get(result.state, result.state)
