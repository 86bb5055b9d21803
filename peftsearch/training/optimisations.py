"""Optimisations: exact ways to save work on a frozen, shared backbone; each can be switched off.

None of them changes results (in fp64 trials agree to 1e-9 over 20 AdamW steps with and without), so
they are no part of a configuration; the switches exist to measure them one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from peftsearch.errors import ConfigurationError, did_you_mean

__all__ = ["Optimisations"]


@dataclass(frozen=True)
class Optimisations:
    """Enabled optimisations."""

    buckets: bool = True
    """Batches of texts of similar length, in shuffled order; else of any lengths."""
    tokens: bool = True
    """Texts are tokenised once, before the first trial; else at every read."""
    short_backward: bool = True
    """No gradients below the lowest modification; else down to the embeddings."""
    activations: bool = True
    """States of the frozen layers below the lowest modification are computed once and cached."""
    rows: bool = True
    """The last layer is computed only for the tokens that the head reads."""
    features: bool = True
    """A head alone is trained on pooled states, computed once and cached."""
    inference: bool = True
    """Evaluation in inference mode on large batches sorted by length; else without gradients on
    small batches in the examples' order.
    """
    fused: bool = True
    """One fused optimiser call over all tuned tensors; else one a tensor."""
    fused_sum: bool = True
    """A bottleneck's up-projection scales Δh and adds it to h in one product; else three passes
    over h.
    """
    causal: bool = True
    """Causal attention without a padding mask, since texts are padded at their end; else with a
    mask [batch, 1, tokens, tokens].
    """
    logits: bool = True
    """Logits only of the tokens that are predicted; else also of prompts and padding."""
    graphs: bool = True
    """On a GPU shared passes are replayed as CUDA graphs, where that is correct and faster."""
    allocator: bool = True
    """glibc's malloc keeps freed memory, within limits, instead of mapping every large tensor
    anew. Once switched on, it stays on for the rest of the process.
    """

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """All names, in the order of the fields."""
        return tuple(optimisation.name for optimisation in fields(cls))

    @classmethod
    def none(cls) -> Optimisations:
        """All of them off."""
        return cls(**dict.fromkeys(cls.names(), False))

    @classmethod
    def only(cls, *names: str) -> Optimisations:
        """Some of them on, all others off; raises ConfigurationError for an unknown name."""
        return replace(cls.none(), **cls._known(names, True))

    def without(self, *names: str) -> Optimisations:
        """These optimisations less some; raises ConfigurationError for an unknown name."""
        return replace(self, **self._known(names, False))

    @classmethod
    def _known(cls, names: tuple[str, ...], on: bool) -> dict[str, bool]:
        for name in names:
            if name not in cls.names():
                raise ConfigurationError(
                    f"optimisation '{name}' unknown{did_you_mean(name, cls.names())}: "
                    f"{', '.join(cls.names())}"
                )
        return dict.fromkeys(names, on)
