"""Asserts what `make demo` promises, on the files of its study: a search worth showing.

Usage: check_demo.py STUDY. The frontier is worked out here once more, from the trials' results
alone, and must be the one that `peftsearch frontier --json` prints.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = Path(sys.executable).with_name("peftsearch")
HEAD_ONLY = ("head-only-first", "head-only-mean")
MIN_EVALUATED, MIN_FULL, MIN_SAMPLED = 12, 5, 5
MIN_POINTS, MIN_RATIO, MIN_GAIN = 4, 100.0, 0.03
MIN_EXAMPLES = 1000


def main(study: str) -> None:
    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(Path("studies", study, "trials").glob("*/result.json"))
    ]
    evaluated = [r for r in results if r["state"] in ("full", "stopped")]
    full = [r for r in evaluated if r["state"] == "full"]
    sampled = [r for r in evaluated if r["origin"] == "sampled"]
    require(len({r["configuration_hash"] for r in evaluated}) == len(evaluated), "a repetition")
    at_least(MIN_EVALUATED, len(evaluated), "configurations evaluated")
    at_least(MIN_FULL, len(full), "trials of full length")
    at_least(MIN_SAMPLED, len(sampled), "evaluated configurations that the sampler proposed")
    at_least(MIN_EXAMPLES, min(r["curve"][-1]["examples"] for r in full), "validation examples")
    frontier = pareto(full)
    check_shape(frontier)
    check_gain(frontier, full)
    check_commands(study, frontier, len(results))


def pareto(full: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Full-length trials that none beats in one objective without losing in the other."""
    return [r for r in full if not any(dominates(other, r) for other in full)]


def dominates(a: dict[str, Any], b: dict[str, Any]) -> bool:
    if a["metric"] < b["metric"] or a["tuned_pct"] > b["tuned_pct"]:
        return False
    return bool(a["metric"] > b["metric"] or a["tuned_pct"] < b["tuned_pct"])


def check_shape(frontier: list[dict[str, Any]]) -> None:
    tuned = [r["tuned_pct"] for r in frontier if r["tuned_pct"] > 0]
    at_least(MIN_POINTS, len(tuned), "frontier points that tune something")
    at_least(MIN_RATIO, max(tuned) / min(tuned), "times from the smallest to the largest tuned %")


def check_gain(frontier: list[dict[str, Any]], full: list[dict[str, Any]]) -> None:
    head_only = [r["metric"] for r in full if r["method"] in HEAD_ONLY]
    require(len(head_only) > 0, "no head-only trial of full length")
    gain = max(r["metric"] for r in frontier) - max(head_only)
    at_least(MIN_GAIN, gain, "accuracy above the better head-only")


def check_commands(study: str, frontier: list[dict[str, Any]], trials: int) -> None:
    printed = printed_json("frontier", study)
    numbers = {(round(p["tuned_pct"], 9), p["metric"]) for p in printed["points"]}
    ours = {(round(r["tuned_pct"], 9), r["metric"]) for r in frontier}
    require(numbers == ours, f"peftsearch frontier prints {numbers}, the trials say {ours}")
    require("schema" in printed_json("status", study), "status --json has no schema")
    require(Path("studies", study, "report.html").is_file(), "no report.html")
    print(f"demo: {trials} trials, {len(frontier)} frontier points: as promised")


def printed_json(command: str, study: str) -> Any:
    done = subprocess.run(
        [COMMAND, command, study, "--json"], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def at_least(minimum: float, found: float, what: str) -> None:
    print(f"demo: {found:.4g} {what} (at least {minimum:g})")
    require(found >= minimum, f"{found:.4g} {what}, {minimum:g} promised")


def require(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(f"demo: {what}")


if __name__ == "__main__":
    main(sys.argv[1])
