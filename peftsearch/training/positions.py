"""How much room a text takes in a batch: its tokens, and what a configuration adds to each text.

What is added decides how texts are put together and nothing else, so that where nothing is added
batches are what they would be without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Prefix, Prompt

__all__ = ["Positions", "most_trained"]

Indices = NDArray[np.int64]

_A_PREFIX_POSITION = 4
"""So many keys and values of a prefix weigh as much as a token: 2·d numbers for each text, where a
token has about 8·d at a time (states, and what the feed-forward layer makes of them).
"""

MOST_TRAINED = {"cpu": 4096, "cuda": 16384}
"""Positions of one forward and backward pass, where a prompt makes texts longer."""


@dataclass(frozen=True)
class Positions:
    """Of each text, beside its tokens: `prompt` positions that are computed like tokens, and the
    `prefix` keys that it attends to in one layer.
    """

    prompt: int = 0
    prefix: int = 0

    @classmethod
    def of(cls, configuration: Configuration) -> Positions:
        """What a configuration that is placed in a backbone adds."""
        widest = {
            kind: [m.widest for m in configuration.modifications if isinstance(m.form, kind)]
            for kind in (Prompt, Prefix)
        }
        return cls(sum(widest[Prompt]), max(widest[Prefix], default=0))

    def without_gradients(self, lengths: Indices) -> Indices:
        """The room of texts of so many tokens where one layer's states are held at a time."""
        return lengths + (self.prompt + -(-self.prefix // _A_PREFIX_POSITION))

    def pieces(self, lengths: Indices, most: int) -> int:
        """In how many parts a step's texts are trained so that each has at most so many positions;
        without a prompt as one, as the user has asked for it. A prefix is a small part of what a
        backward pass keeps.
        """
        if not self.prompt or not len(lengths):
            return 1
        padded = len(lengths) * (int(lengths.max()) + self.prompt)
        return min(-(-padded // most), len(lengths))


def most_trained(device: torch.device) -> int:
    """Positions of one forward and backward pass, where prompts are counted."""
    return MOST_TRAINED["cuda" if device.type == "cuda" else "cpu"]
