"""Training budgets: the full length of training, and the rungs at which trials are evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from peftsearch.errors import ConfigurationError

__all__ = ["TrainingBudget"]

MOST_EPOCHS, MOST_STEPS = 10_000, 1_000_000_000
"""Upper limits, the same in space files."""


@dataclass(frozen=True)
class TrainingBudget:
    """The full length, in epochs or in optimiser steps, and rungs as fractions of it, the last 1.

    `rung_examples`: the most evaluation examples below the last rung (always the same ones).
    Raises ConfigurationError unless exactly one of `epochs` and `max_steps` is given, for a length
    out of bounds, and for rungs that do not rise from above 0 to 1.

    >>> from peftsearch.design.budget import TrainingBudget
    >>> TrainingBudget(epochs=3, rungs=(0.25, 1.0)).rung_steps(per_epoch=100)
    (75, 300)
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
        """Optimiser steps of a full-length trial with `per_epoch` batches an epoch."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, round((self.epochs or 0) * per_epoch))

    def rung_steps(self, per_epoch: int) -> tuple[int, ...]:
        """The step at which each rung is evaluated."""
        full = self.full_steps(per_epoch)
        return tuple(max(1, round(fraction * full)) for fraction in self.rungs)
