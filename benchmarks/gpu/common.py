"""Common ground of the GPU measurements: device, folders, and facts saved one by one.

Imports no torch, so that `run.py` and worker processes can read it at once. The scripts run from
`benchmarks/gpu/`, and as copies from another folder of the checkout.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = [
    *("DEVICE", "ON_GPU", "OUT", "ROOT", "SCRATCH", "Facts"),
    *("measured", "problems", "say", "seconds_asked"),
]

ROOT = next(
    folder
    for folder in Path(__file__).resolve().parents
    if (folder / "peftsearch" / "version.py").exists()
)
"""The checkout."""
DEVICE = os.environ.get("KIT_DEVICE", "cuda")
ON_GPU = DEVICE != "cpu"
"""False: everything is tiny, and only shows that the scripts run."""
OUT = Path(os.environ.get("OUT") or Path(tempfile.gettempdir(), "gpu-out"))
"""Folder of the results."""
SCRATCH = Path(os.environ.get("KIT_SCRATCH") or Path(tempfile.gettempdir(), "gpu-scratch"))
"""Folder of models and studies, gigabytes that are no results."""

# Before torch is imported, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Trainer's arms are those of the throughput benchmark; tiny models, and CUDA graphs emulated on a
# CPU, are those of the tests.
sys.path[:0] = [str(ROOT / folder) for folder in ("benchmarks/throughput", "tests", "")]

_BEGAN = time.perf_counter()


def say(*words: object) -> None:
    """Print a line with the seconds since the script began."""
    print(f"[{time.perf_counter() - _BEGAN:6.1f}]", *words, flush=True)


def seconds_asked(arguments: list[str]) -> float:
    """Seconds that a script may take: its first argument, without one no limit."""
    return float(arguments[0]) if arguments else float("inf")


class Facts:
    """Facts of one script, in `OUT/NAME.json`: written anew after each, since any may be the last.

    After `seconds` facts are skipped. `adds`: those that are in the file already are kept.
    """

    def __init__(self, name: str, seconds: float = float("inf"), adds: bool = False) -> None:
        self.path = OUT / f"{name}.json"
        self.found: dict[str, Any] = {}
        """Those of this script."""
        self._before: dict[str, Any] = {}
        if adds and self.path.exists():
            self._before = json.loads(self.path.read_text(encoding="utf-8"))
        self._until = time.perf_counter() + seconds

    def add(self, name: str, measure: Callable[[], Any]) -> None:
        """Keep what `measure()` returns, or its error in full: one error stops no other fact."""
        if time.perf_counter() > self._until:
            self.found[name] = {"skipped": "no time left"}
        else:
            self.found[name] = measured(measure)
        say(name, self.found[name])
        for problem in problems(self.found[name], name):
            say("FAILED", problem)
        self.save()

    def save(self) -> None:
        OUT.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._before | self.found, indent=1, default=str)
        self.path.write_text(text, encoding="utf-8")

    def finish(self) -> None:
        """End the script: with exit code 1 if there were errors, or a check did not pass."""
        found = list(problems(self.found))
        say(f"done, {len(found)} problems")
        sys.exit(1 if found else 0)


def measured(measure: Callable[[], Any]) -> Any:
    """A function's result, or `{"error": …}` with its traceback."""
    try:
        return measure()
    except Exception:
        return {"error": traceback.format_exc()}


def problems(facts: Any, name: str = "") -> Iterator[str]:
    """Errors, and checks that did not pass, anywhere in facts: a sentence each."""
    if not isinstance(facts, dict):
        return
    if "error" in facts:
        yield f"{name}: {facts['error']}"
    if facts.get("passed") is False:
        yield f"{name}: not passed"
    for key, value in facts.items():
        yield from problems(value, f"{name}, {key}" if name else str(key))
