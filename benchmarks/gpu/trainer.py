"""Trainer with peft on MiniLM: milliseconds of a step, and seconds of a whole trial."""

from __future__ import annotations

import time
from typing import Any

import arms
from common import ON_GPU
from members import budget
from timing import wait

from peftsearch.design.configuration import Configuration
from peftsearch.training.bench import Workbench

__all__ = ["documented", "every_switch"]

_SHORT, _LONG, _TRIAL = (20, 120, 63) if ON_GPU else (1, 2, 1)
"""Steps of the trainings."""


def documented(bench: Workbench, one: Configuration) -> dict[str, float]:
    """(a) of the throughput benchmark: as the documentation of Trainer and peft does it."""
    return _timed(arms.documented, bench, one)


def every_switch(bench: Workbench, one: Configuration) -> dict[str, float]:
    """(b) of the throughput benchmark: one backbone for all trials, and every switch that helps."""
    return _timed(arms.tuned_trainer, bench, one)


def _timed(arm: arms.Arm, bench: Workbench, one: Configuration) -> dict[str, float]:
    """A step is the slope between a short and a long training, so that loading, attaching and
    evaluating do not count; a trial is 63 steps with all of that.
    """
    arms._SHARED.clear()  # the frozen body of an earlier arm may have another precision
    _seconds(arm, bench, one, _SHORT)  # warms up
    short, long, trial = (_seconds(arm, bench, one, steps) for steps in (_SHORT, _LONG, _TRIAL))
    return {
        "step_ms": round(1000 * (long - short) / (_LONG - _SHORT), 3),
        "trial_s": round(trial, 3),
    }


def _seconds(arm: Any, bench: Workbench, one: Configuration, steps: int) -> float:
    wait()
    began = time.perf_counter()
    arm(bench, one, budget(steps), 0)
    wait()
    return time.perf_counter() - began
