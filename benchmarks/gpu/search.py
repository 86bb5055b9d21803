"""A search by `peftsearch search`, with CUDA graphs whatever torch's version: trials an hour.

    python search.py NAME SPACE [OPTIONS OF `peftsearch search`]

Adds to `search.json` under NAME. Without --model on MiniLM and 1,000 tweets. With KIT_GRAPHS=off
workers record as peftsearch does by itself.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import cuda_graphs
from common import DEVICE, SCRATCH, Facts
from members import search_options

from peftsearch.cli.main import run
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from peftsearch.workers import run as workers
from peftsearch.workers.launchers.local import LocalWorkers

_STUDIES = SCRATCH / "studies"


def searched(name: str, space: str, options: list[str]) -> dict[str, Any]:
    """Facts of a search, its exit code among them."""
    root = _STUDIES / name
    shutil.rmtree(root, ignore_errors=True)
    options = options if "--model" in options else [*search_options(), *options]
    words = [space, "--study", name, "--studies", str(_STUDIES), "--device", DEVICE, *options]
    began = time.time()
    code = run(["search", *words])
    facts = {"exit_code": code, "wall_s": round(time.time() - began, 1)}
    return facts | {"passed": code == 0} | _trials(root, began)


def _trials(root: Path, began: float) -> dict[str, Any]:
    """Facts of a study's trials; seconds since `began`, in seconds of `time.time()`."""
    results = _results(root)
    ends = sorted(datetime.fromisoformat(one.finished_at).timestamp() for one in results)
    logs = {file.parent.name: file.read_text("utf-8") for file in root.glob("trials/*/log.txt")}
    facts: dict[str, Any] = {
        "trials": len(results),
        "states": dict(Counter(one.state for one in results)),
        "cohorts": [one.cohort for one in results],
        "sum_wall_s": round(sum(one.wall_s for one in results), 2),
        "sum_eval_s": round(sum(one.eval_s for one in results), 2),
        "logs": {number: log[:300] for number, log in logs.items() if log.strip()},
        "failed": [one.message for one in results if one.state == "failed"],
    }
    if ends:
        facts |= {
            "first_end_s": round(ends[0] - began, 1),
            "last_end_s": round(ends[-1] - began, 1),
        }
    if len(ends) > 2:
        hours = max(ends[-1] - ends[0], 1) / 3600
        facts["trials_an_hour_after_the_first"] = round((len(ends) - 1) / hours)
    return facts


def _results(root: Path) -> list[TrialResult]:
    if not root.exists():  # the search was refused
        return []
    return list(StudyFolder.at(root).read().results)


def main(arguments: list[str]) -> None:
    name, space, *options = arguments
    if os.environ.get("KIT_GRAPHS") != "off":
        workers.LocalWorkers = lambda *arguments: LocalWorkers(*arguments, cuda_graphs.worker)
    facts = Facts("search", adds=True)
    facts.add(name, lambda: searched(name, space, options))
    facts.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
