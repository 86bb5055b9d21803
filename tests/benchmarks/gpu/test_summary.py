"""The summary of a GPU run holds what was measured, and what was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FACTS: dict[str, Any] = {
    "facts": {
        "machine": {
            "gpu": "NVIDIA H100 80GB HBM3",
            "cuda": "12.8",
            "nvidia-smi": {"driver_version": "570.86"},
            "torch": "2.13.0",
            "cpu": "Xeon",
            "cores": 16,
            "date": "2026-11-30",
        },
        "products": {"4096x4096x4096": {"fp32": 50.0, "tf32": 400.0, "bf16": 700.0}},
    },
    "run": [
        {"part": "facts", "outcome": "well", "wall_s": 9.0},
        {"part": "decoder", "outcome": "stopped after 180 s", "wall_s": 185.2},
    ],
    "checks": {
        "alone, fp64": {"passed": True, "furthest": 2e-12},
        "graphs by method, fp32": {
            "lora": {"passed": False, "furthest": 0.5, "notes": ["graphs disagree"]},
            "loreft": {"error": "Traceback:\n  qr\nRuntimeError: a | b\n"},
        },
    },
    "speed": {
        "(a) Trainer + peft, as documented": {"step_ms": 12.0, "trial_s": 2.0},
        "16 lora, fp32": {"step_ms": 3.0, "host_pass_ms": 1.25, "peak_gib": 1.5},
        "32 lora, fp32": {"skipped": "no time left"},
        "16 trials, fp32": {"attach_s": 0.01, "train_s": 0.2, "trials_an_hour": 9000},
    },
}


@pytest.fixture
def lines(script: Callable[[str], ModuleType], tmp_path: Path) -> list[str]:
    for name, facts in FACTS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(facts))
    text: str = script("summary").summary(tmp_path)
    return text.splitlines()


def test_card_driver_versions_and_date_come_first(lines: list[str]) -> None:
    assert lines[0] == (
        "NVIDIA H100 80GB HBM3, driver 570.86, CUDA 12.8, 16 cores of Xeon, torch 2.13.0, "
        "2026-11-30."
    )


def test_speeds_are_multiples_of_trainers(lines: list[str]) -> None:
    assert "| 16 lora, fp32 | 3 | 4 | 1.25 | 1.5 | |" in lines


def test_what_failed_or_was_skipped_has_its_row(lines: list[str]) -> None:
    assert "| decoder | stopped after 180 s | 185.2 | |" in lines
    assert "| graphs by method, fp32: lora | **no** | 0.5 | graphs disagree |" in lines
    assert "| graphs by method, fp32: loreft |  |  | error: RuntimeError: a / b |" in lines
    assert "| 32 lora, fp32 |  |  |  |  | no time left |" in lines


def test_every_row_has_as_many_cells_as_its_heading(lines: list[str]) -> None:
    tables = "\n".join(lines).split("\n\n")[1:]
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
