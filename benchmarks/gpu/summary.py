"""Summary of a run of the GPU measurements: tables in Markdown, from its JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["summary"]

Rows = dict[str, dict[str, Any]]
"""Name of a row → its values by key."""
Columns = dict[str, str]
"""Key of a value → the column's heading."""

_REFERENCE = "(a) Trainer + peft, as documented"
_VERSIONS = ("torch", "transformers", "peft", "peftsearch", "python")
_SPEED: Columns = {
    "step_ms": "ms a step of one",
    "times": "times (a)",
    "host_batch_ms": "host: batch",
    "host_transfer_ms": "transfer",
    "host_pass_ms": "pass",
    "host_replay_ms": "replay",
    "host_optimisers_ms": "optimisers",
    "host_rest_ms": "rest",
    "kernels_ms": "kernels",
    "replayed": "replayed",
    "peak_gib": "peak GiB",
}
_PRODUCTS: Columns = {"fp32": "fp32", "tf32": "tf32", "bf16": "bf16"}
_TRIALS: Columns = {
    "attach_s": "attach, s",
    "train_s": "train, s",
    "evaluate_s": "evaluate, s",
    "trials_an_hour": "trials an hour",
}
_PROTO: Columns = {"step_ms": "ms a step of one", "host_ms": "host, ms", "peak_gib": "peak GiB"}
_DECODER: Columns = {
    "step_ms": "ms a step of one",
    "tokens_s": "tokens a second",
    "tflop_s": "TFLOP/s",
    "replays": "replays",
    "peak_gib": "peak GiB",
    "mask_ms": "with mask, ms",
    "causal_ms": "causal, ms",
    "token_ms": "ms a token",
}
_SEARCH: Columns = {
    "trials": "trials",
    "wall_s": "seconds",
    "first_end_s": "first ended after",
    "trials_an_hour_after_the_first": "trials an hour after it",
}


def summary(out: Path) -> str:
    """Results of the parts that ran; errors and skipped parts stand in their rows."""
    facts = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(out.glob("*.json"))}
    runs = {one["part"]: one for one in facts.get("run", [])}
    speed = _with_times(facts.get("speed", {}))
    parts = [
        _machine(facts.get("facts", {})),
        _table("part", {"outcome": "ended", "wall_s": "seconds"}, runs),
        _table("check", {"passed": "passed", "furthest": "furthest"}, _checks(facts)),
        _table("products, TFLOP/s", _PRODUCTS, facts.get("facts", {}).get("products", {})),
        _table("MiniLM, ms of a pass", _SPEED, _without(speed, "trials_an_hour")),
        _table("MiniLM, whole trials", _TRIALS, _only(speed, "trials_an_hour")),
        _table("MiniLM, stacked prototype", _PROTO, _both(facts, "proto", "proto_compiled")),
        _table("decoder of 1B", _DECODER, _without(facts.get("decoder", {}), "parameters")),
        _table("search", _SEARCH, facts.get("search", {})),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _machine(facts: dict[str, Any]) -> str:
    """One line: card, driver, versions, processor and date."""
    own = facts.get("machine", {})
    smi = own.get("nvidia-smi", {})
    driver = smi.get("driver_version", "unknown") if isinstance(smi, dict) else "unknown"
    card = ["no GPU: nothing is measured"]
    if "gpu" in own:
        card = [own["gpu"], f"driver {driver}", f"CUDA {own['cuda']}"]
    versions = [f"{name} {own[name]}" for name in _VERSIONS if name in own]
    host = f"{own.get('cores', '?')} cores of {own.get('cpu', 'an unknown CPU')}"
    return ", ".join([*card, host, *versions, str(own.get("date", "date unknown"))]) + "."


def _with_times(speed: Rows) -> Rows:
    """Speeds as multiples of Trainer's, too."""
    reference = speed.get(_REFERENCE, {}).get("step_ms")
    if not reference:
        return speed
    return {
        name: own | ({"times": reference / own["step_ms"]} if own.get("step_ms") else {})
        for name, own in speed.items()
    }


def _checks(facts: dict[str, Any]) -> Rows:
    return dict(_flat(facts.get("checks", {})))


def _flat(rows: Rows, above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Checks by name; those of several methods a row each."""
    for name, own in rows.items():
        if {"passed", "furthest", "error", "skipped"} & own.keys():
            yield above + name, own
        else:
            yield from _flat(own, f"{above}{name}: ")


def _only(rows: Rows, key: str) -> Rows:
    return {name: own for name, own in rows.items() if key in own}


def _without(rows: Rows, key: str) -> Rows:
    return {name: own for name, own in rows.items() if key not in own}


def _both(facts: dict[str, Any], *names: str) -> Rows:
    return {row: own for name in names for row, own in facts.get(name, {}).items()}


def _table(what: str, columns: Columns, rows: Rows) -> str:
    """A table in Markdown, of columns that any row has; empty without rows."""
    if not rows:
        return ""
    known = {key for own in rows.values() for key in own}
    columns = {key: heading for key, heading in columns.items() if key in known}
    headings = [what, *columns.values(), ""]
    lines = ["| " + " | ".join(headings).rstrip() + " |", "|---|" + "--:|" * len(columns) + "---|"]
    for name, own in rows.items():
        values = [_written(own.get(key, "")) for key in columns]
        lines.append("| " + " | ".join([name, *values, _remark(own)]).rstrip() + " |")
    return "\n".join(lines)


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _remark(own: dict[str, Any]) -> str:
    """The last line of an error, the reason for skipping, or notes."""
    if "error" in own:
        last = str(own["error"]).strip().splitlines()[-1]
        return "error: " + last.replace("|", "/")
    return "; ".join([*([own["skipped"]] if "skipped" in own else []), *own.get("notes", [])])
