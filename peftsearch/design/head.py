"""The task head: the pooling of the last hidden states, and the layers trained on top of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peftsearch.design.checks import check_flag, check_name

__all__ = ["POOLINGS", "Head"]

POOLINGS = ("first", "mean", "last", "none")


@dataclass(frozen=True)
class Head:
    """The layers that read the last hidden states [batch, tokens, hidden], trained with every
    configuration: pooling to [batch, hidden], a pooler or none, a classifier to [batch, outputs].

    Raises ConfigurationError for an unknown pooling or pooler.

    >>> from peftsearch.design.head import Head
    >>> Head("first", pooler="trained").parameters(hidden=4, outputs=3)  # 4·4 + 4, and 4·3 + 3
    35
    """

    pooling: Literal["first", "mean", "last", "none"] = "mean"
    """`first` token, `mean` over tokens, or `last` token of the text, which in a decoder has seen
    all others. `none`: no head is trained; the model's own language-model head writes text.
    """
    pooler: Literal["none", "trained"] = "none"
    """`trained`: a layer [hidden, hidden] and tanh before the classifier, which begins as the
    pretrained pooler.
    """
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
        """Trained parameters of the pooler: hidden² + hidden, or 0."""
        return hidden * hidden + hidden if self.pooler == "trained" else 0

    def parameters(self, hidden: int, outputs: int) -> int:
        """Trained parameters of the whole head: pooler, and hidden · outputs + outputs."""
        if self.pooling == "none":
            return 0
        return self.pooler_parameters(hidden) + hidden * outputs + outputs
