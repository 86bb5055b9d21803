"""Training length and rungs."""

from __future__ import annotations

from typing import Any

import pytest

from peftsearch.design.budget import TrainingBudget
from peftsearch.errors import ConfigurationError
from peftsearch.training.batches import steps_per_epoch


@pytest.mark.parametrize(
    ("budget", "examples", "batch", "steps"),
    [
        (TrainingBudget(epochs=2), 2000, 32, (32, 126)),  # 63 steps an epoch: the last one smaller
        (TrainingBudget(epochs=0.5, rungs=(1.0,)), 100, 10, (5,)),
        (TrainingBudget(epochs=0.01, rungs=(1.0,)), 100, 10, (1,)),
        (TrainingBudget(max_steps=3, rungs=(0.1, 0.5, 1.0)), 100, 10, (1, 2, 3)),
        (TrainingBudget(max_steps=3000), 7, 1, (750, 3000)),
    ],
)
def test_rungs_in_steps(
    budget: TrainingBudget, examples: int, batch: int, steps: tuple[int, ...]
) -> None:
    per_epoch = steps_per_epoch(examples, batch)
    assert budget.rung_steps(per_epoch) == steps
    assert budget.full_steps(per_epoch) == steps[-1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "one of the two"),
        ({"epochs": 1, "max_steps": 1}, "one of the two"),
        ({"epochs": 0}, "above 0"),
        ({"max_steps": -3}, "above 0"),
        ({"epochs": float("nan")}, "above 0"),
        ({"epochs": float("inf")}, "epochs must be above 0, and at most 10,000"),
        ({"max_steps": 10**400}, "max_steps must be above 0, and at most 1,000,000,000"),
        ({"epochs": 1, "rungs": (float("nan"), 1.0)}, "must rise"),
        ({"epochs": 1, "rungs": ()}, "must rise"),
        ({"epochs": 1, "rungs": (0.5,)}, "must rise"),
        ({"epochs": 1, "rungs": (0.0, 1.0)}, "must rise"),
        ({"epochs": 1, "rungs": (0.5, 0.5, 1.0)}, "must rise"),
        ({"epochs": 1, "rungs": (0.5, 0.25, 1.0)}, "must rise"),
        ({"epochs": 1, "rung_examples": 0}, "rung_examples"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        TrainingBudget(**options)
