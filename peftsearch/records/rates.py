"""Learning rates of a configuration, as text, JSON and table columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Rates"]


@dataclass(frozen=True)
class Rates:
    """Learning rates. `lr`: by functional form; `head_lr`: None where no head is trained;
    `up_lr_ratio`: the ratio of up-projections' rate to their form's (LoRA+, arXiv:2402.12354).
    """

    lr: Mapping[str, float] = field(default_factory=dict)
    head_lr: float | None = None
    up_lr_ratio: float = 1.0

    @classmethod
    def of(cls, configuration: Mapping[str, Any] | None) -> Rates:
        """Rates in `Configuration.to_json()`; none for a trial without a configuration."""
        if configuration is None:
            return cls()
        training = configuration.get("training", {})
        trains_head = configuration.get("head", {}).get("pooling") != "none"
        return cls(
            lr=dict(training.get("lr", {})),
            head_lr=training.get("head_lr") if trains_head else None,
            up_lr_ratio=training.get("up_lr_ratio", 1.0),
        )

    def __str__(self) -> str:
        """`lr 2.6e-3, head 5e-3`, or `lr linear 2.6e-3, prefix 1e-2, head 5e-3`, or nothing."""
        parts = [self.lr_text] if self.lr else []
        if self.head_lr is not None:
            parts.append(f"head {_short(self.head_lr)}")
        return f"lr {', '.join(parts)}" if parts else ""

    @property
    def lr_text(self) -> str:
        """The rate that all forms share, or each form's."""
        if len(set(self.lr.values())) == 1:
            text = _short(next(iter(self.lr.values())))
        else:
            text = ", ".join(f"{form} {_short(rate)}" for form, rate in self.lr.items())
        return text if self.up_lr_ratio == 1 else f"{text} (up-projections ×{self.up_lr_ratio:g})"

    def columns(self) -> dict[str, str | float | None]:
        """Exact values for a table; `lr` is a number where all forms share it."""
        same = len(set(self.lr.values())) == 1
        each = " ".join(f"{form}={rate!r}" for form, rate in self.lr.items())
        lr = next(iter(self.lr.values())) if same else each or None
        return {"lr": lr, "head_lr": self.head_lr, "up_lr_ratio": self.up_lr_ratio}

    def to_json(self) -> dict[str, Any]:
        return {"lr": dict(self.lr), "head_lr": self.head_lr, "up_lr_ratio": self.up_lr_ratio}


def _short(rate: float) -> str:
    """Two digits: `2.6e-3`, `1e-2`."""
    mantissa, exponent = f"{rate:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
