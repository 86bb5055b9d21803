"""The throughput benchmark's table says what was measured, and marks ratios that do not count."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "throughput"


@pytest.fixture(scope="module")
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("throughput_table", FOLDER / "table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(arm: str, index: int, seconds: float, accuracy: float) -> dict[str, Any]:
    trial = {
        "cpu_s": seconds,
        "wall_s": seconds,
        "metric": accuracy,
        "trained": "LoRA",
        "frozen_layers": 3,
    }
    return {
        "round": index,
        "scenario": "all layers",
        "arm": arm,
        "trials": [trial],
        "peak_mib": 700.4,
    }


def facts(worse: float = 0.0) -> dict[str, Any]:
    """(a) takes 8 and then 12 seconds, (b) 6 and 6, ours 2 and 4."""
    rounds = [
        *(measured("(a) documented", i, s, 0.7) for i, s in enumerate((8.0, 12.0))),
        *(measured("(b) every switch", i, s, 0.7) for i, s in enumerate((6.0, 6.0))),
        *(measured("(d) ours, all", i, s, 0.7 - worse) for i, s in enumerate((2.0, 4.0))),
    ]
    flops = {"all layers": 6 * 10**10}
    return {"train": 10, "eval": 400, "rounds": rounds, "gemm": 1e11, "flops": flops}


def test_ratios_are_taken_within_rounds_and_shown_with_their_spread(
    table: ModuleType, tmp_path: Path
) -> None:
    text = table.written(facts(), tmp_path)
    ours = next(line for line in text.splitlines() if line.startswith("| (d)"))
    assert "3.50 (3.00–4.00)" in ours, "8/2 and 12/4 times (a)"
    assert "2.25 (1.50–3.00)" in ours, "6/2 and 6/4 times (b)"
    assert "| 3.00 | 1200 |" in ours, "seconds a trial, trials an hour"
    assert (tmp_path / "throughput.md").read_text() == text


def test_what_is_reached_is_compared_with_the_peak(table: ModuleType, tmp_path: Path) -> None:
    text = table.written(facts(), tmp_path)
    assert "60 GFLOP a trial, 20 GFLOP/s of all its time: 20% of the 100 GFLOP/s" in text


def test_an_arm_that_ends_elsewhere_is_marked(table: ModuleType, tmp_path: Path) -> None:
    assert "differs" not in table.written(facts(0.02), tmp_path)
    assert "(differs)" in table.written(facts(0.2), tmp_path)


def test_the_figure_has_a_bar_for_every_arm(table: ModuleType, tmp_path: Path) -> None:
    table.written(facts(), tmp_path)
    html = (tmp_path / "throughput.html").read_text()
    assert all(arm in html for arm in ("(a) documented", "(b) every switch", "(d) ours, all"))
