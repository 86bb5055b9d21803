"""How long a configuration trains, and at which lengths it is evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from peftsearch.errors import ConfigurationError

__all__ = ["TrainingBudget"]

MOST_EPOCHS, MOST_STEPS = 10_000, 1_000_000_000
"""Space files end there, too."""


@dataclass(frozen=True)
class TrainingBudget:
    """Full length in epochs or steps; rungs are fractions of it, the last one 1.

    `rung_examples`: at most so many evaluation examples below the last rung (always the same ones).
    """

    epochs: float | None = None
    max_steps: int | None = None
    rungs: tuple[float, ...] = (0.25, 1.0)
    rung_examples: int = 400

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.max_steps is None):
            raise ConfigurationError("training budget: give epochs or max_steps, one of the two")
        for name, length, most in (
            ("epochs", self.epochs, MOST_EPOCHS),
            ("max_steps", self.max_steps, MOST_STEPS),
        ):
            if length is not None and not 0 < length <= most:
                raise ConfigurationError(
                    f"training budget: {name} must be above 0, and at most {most:,}"
                )
        ordered = sorted(set(self.rungs))
        within = all(0 < rung <= 1 for rung in self.rungs)
        if not within or ordered[-1:] != [1.0] or list(self.rungs) != ordered:
            raise ConfigurationError(
                f"rungs {list(self.rungs)} must rise from above 0 to 1, the full length"
            )
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
