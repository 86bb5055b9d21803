"""Training length: how long a configuration trains, and at which lengths it is evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from peftsearch.errors import ConfigurationError

__all__ = ["MAX_EPOCHS", "MAX_STEPS", "TrainingBudget", "check_length", "check_rungs"]

MAX_EPOCHS, MAX_STEPS = 10_000, 1_000_000_000


@dataclass(frozen=True)
class TrainingBudget:
    """Full length in epochs or optimiser steps; rungs are fractions of it, the last one 1.

    Raises ConfigurationError for anything else. Made from a space file by
    `Budgets.training_budget`, from a recipe by `Recipe.budget`.
    """

    epochs: float | None = None
    max_steps: int | None = None
    rungs: tuple[float, ...] = (0.25, 1.0)
    rung_examples: int = 400
    """Most examples of an evaluation below the last rung, always the same ones."""

    def __post_init__(self) -> None:
        check_length(self.epochs, self.max_steps)
        check_rungs(self.rungs)
        if self.rung_examples < 1:
            raise ConfigurationError("rung_examples must be at least 1")

    def full_steps(self, per_epoch: int) -> int:
        """Optimiser steps of a full-length trial with so many batches an epoch."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, round((self.epochs or 0) * per_epoch))

    def rung_steps(self, per_epoch: int) -> tuple[int, ...]:
        """The step at which each rung is evaluated."""
        full = self.full_steps(per_epoch)
        return tuple(max(1, round(fraction * full)) for fraction in self.rungs)


def check_length(epochs: float | None, max_steps: int | None) -> None:
    """ConfigurationError unless exactly one of them is given, above 0 and within its limit."""
    if (epochs is None) == (max_steps is None):
        raise ConfigurationError("give epochs or max_steps, one of the two")
    for name, length, most in (
        ("epochs", epochs, MAX_EPOCHS),
        ("max_steps", max_steps, MAX_STEPS),
    ):
        if length is not None and not 0 < length <= most:
            raise ConfigurationError(f"{name} must be above 0, and at most {most:,}")


def check_rungs(rungs: tuple[float, ...]) -> None:
    """ConfigurationError unless rungs rise from above 0 to 1."""
    ordered = sorted(set(rungs))
    within = all(0 < rung <= 1 for rung in rungs)
    if not within or ordered[-1:] != [1.0] or list(rungs) != ordered:
        raise ConfigurationError(
            f"rungs {list(rungs)} must rise from above 0 to 1, the full length"
        )
