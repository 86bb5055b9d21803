"""Validation of --low-rungs: low precision of frozen layers below full length."""

from __future__ import annotations

from peftsearch.backbone.savings.low_precision import low_precision
from peftsearch.errors import UsageError
from peftsearch.space.space import Space

__all__ = ["refuse_low_rungs"]


def refuse_low_rungs(name: str, space: Space, device: str) -> None:
    """Raise ConfigurationError for an unknown precision, MissingError if this CPU lacks the
    instructions, UsageError where low precision would change nothing or is not supported.
    """
    precision, train = low_precision(name), space.file.train
    reason = None
    if not device.startswith("cpu"):
        reason = f"they are for CPUs, not for {device}"
    elif len(space.file.budgets.rungs) == 1:
        reason = f"space '{space.name}' has no rung below full length"
    elif set(train.schedule.choices) == {"linear"}:
        reason = "with a linear schedule trials are evaluated at full length only"
    elif set(train.precision.choices) != {"fp32"}:
        reason = "the space's frozen backbone is in bf16, not in fp32"
    if reason is not None:
        raise UsageError(f"--low-rungs {name} cannot be used: {reason}; leave it out")
    precision.refuse_if_missing()
