"""Positions that a configuration adds to each text, and effective lengths for batching.

Effective lengths only decide how texts are batched. Without prompts and prefixes the batches are
exactly those by tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Prefix, Prompt

__all__ = ["Positions", "max_trained_positions"]

Indices = NDArray[np.int64]

_A_PREFIX_POSITION = 4
"""Prefix positions counted as one token: a prefix position has 2·d numbers for each text (key and
value), a token about 8·d at a time (states, and the feed-forward layer's).
"""

MAX_TRAINED_POSITIONS = {"cpu": 4096, "cuda": 16384}
"""Maximum positions of a forward and backward pass if there is a prompt."""


@dataclass(frozen=True)
class Positions:
    """Positions added to each text: `prompt` (computed like tokens) and `prefix` (attended to only,
    of the layer with the longest).
    """

    prompt: int = 0
    prefix: int = 0

    @classmethod
    def of(cls, configuration: Configuration) -> Positions:
        """Positions added by a configuration that is placed on a backbone (`within`)."""
        widest = {
            kind: [m.widest for m in configuration.modifications if isinstance(m.form, kind)]
            for kind in (Prompt, Prefix)
        }
        return cls(sum(widest[Prompt]), max(widest[Prefix], default=0))

    def effective_lengths(self, lengths: Indices) -> Indices:
        """Effective lengths [n] for batches without gradients, of token counts `lengths` [n]. Only
        one layer's states exist at a time then.
        """
        return lengths + (self.prompt + -(-self.prefix // _A_PREFIX_POSITION))

    def parts(self, lengths: Indices, most: int) -> int:
        """Number of parts to train a batch in, so that each has at most `most` padded positions.

        `lengths` [batch]: tokens of each text. 1 without a prompt: the batch size is then the
        user's choice. Prefixes do not count: they are a small part of what a backward pass keeps.
        """
        if not self.prompt or not len(lengths):
            return 1
        padded = len(lengths) * (int(lengths.max()) + self.prompt)
        return min(-(-padded // most), len(lengths))


def max_trained_positions(device: torch.device) -> int:
    """Maximum positions of a forward and backward pass if there is a prompt, on this device."""
    return MAX_TRAINED_POSITIONS["cuda" if device.type == "cuda" else "cpu"]
