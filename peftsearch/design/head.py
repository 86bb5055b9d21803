"""The task head: what of the backbone's output is read, and what is trained on top of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peftsearch.design.checks import check_flag, check_name

__all__ = ["POOLINGS", "Head"]

POOLINGS = ("first", "mean", "last", "none")


@dataclass(frozen=True)
class Head:
    """What reads the backbone's last hidden states and is trained with every configuration."""

    pooling: Literal["first", "mean", "last", "none"] = "mean"
    """`last`: the last token of the text, which in a decoder has seen all others. `none`: no head
    is trained; the model's own language-model head writes text.
    """
    pooler: Literal["none", "trained"] = "none"
    """`trained`: a d×d layer and tanh before the classifier, begun from the pretrained pooler."""
    pooler_counts: bool = False
    """Whether the pooler counts as tuned: where a space offers it as a choice, it does."""

    def __post_init__(self) -> None:
        check_name("pooling", self.pooling, POOLINGS)
        check_name("pooler", self.pooler, ("none", "trained"))
        check_flag("pooler_counts", self.pooler_counts)
        if self.pooling == "none":
            object.__setattr__(self, "pooler", "none")
        if self.pooler == "none" and self.pooler_counts:
            object.__setattr__(self, "pooler_counts", False)

    def pooler_parameters(self, hidden: int) -> int:
        return hidden * hidden + hidden if self.pooler == "trained" else 0

    def parameters(self, hidden: int, outputs: int) -> int:
        """Trained parameters of the whole head."""
        if self.pooling == "none":
            return 0
        return self.pooler_parameters(hidden) + hidden * outputs + outputs
