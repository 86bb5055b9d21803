"""Parts of the GPU measurements: each a command with a time limit."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Part", "parts"]

_FOLDER = Path(__file__).parent
_TESTS = ("tests/task/tokens/test_transfer.py", "tests/training/cohort/test_graphs.py")


@dataclass(frozen=True)
class Part:
    """One process of `run.py`."""

    name: str
    command: tuple[str, ...]
    limit_s: float


def parts(tiny: bool) -> tuple[Part, ...]:
    """All parts, the most important first. `tiny`: searches as short as they can be."""
    return (
        _script("facts", 60),
        _script("checks", 240),
        _script("speed", 300, 280),
        _script("proto", 90, 80),
        _script("decoder", 180, 160),
        *_searches(tiny),
        _pytest("tests", 120, *_TESTS, "-k", "gpu or sent"),
        _script("proto compiled", 180, 150, "compile"),
    )


def _searches(tiny: bool) -> tuple[Part, ...]:
    if tiny:
        return (_search("two at once", 2, 0.5, "--cohort", 2),)
    return (
        _search("16 at once", 48, 1, "--cohort", 16),
        _search("as it chooses", 48, 1),
        _search("4 workers of 4", 48, 1, "--workers", 4, "--cohort", 4),
        _search("one at a time", 8, 1, "--cohort", 1),
    )


def _search(name: str, trials: int, minutes: float, *options: object) -> Part:
    limits = ("--trials", trials, "--minutes", minutes)
    words = (name.replace(" ", "-"), "lora-only", *limits, *options)
    return _python(f"search, {name}", 60 * minutes + 90, "search.py", *words)


def _script(name: str, limit_s: float, *arguments: object) -> Part:
    """`NAME.py`, NAME without what comes after a space."""
    return _python(name, limit_s, f"{name.split()[0]}.py", *arguments)


def _python(name: str, limit_s: float, script: str, *arguments: object) -> Part:
    words = (sys.executable, str(_FOLDER / script), *map(str, arguments))
    return Part(name, words, limit_s)


def _pytest(name: str, limit_s: float, *arguments: str) -> Part:
    words = (sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "gpu_tests")
    return Part(name, (*words, "-p", "no:cacheprovider", *arguments), limit_s)
