"""Diff-pruning's δ: hard-concrete gates in training, the k largest entries otherwise.

Guo et al. 2021 (arXiv 2012.07463), with the gates of Louizos et al. 2018 (arXiv 1712.01312).
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

__all__ = ["ALPHA_RATE", "OPEN", "SparseDelta"]

_BETA, _GAMMA, _ZETA = 2 / 3, -0.1, 1.1
"""Temperature and stretch of the hard concrete distribution (section 4 of Louizos et al.)."""
OPEN = 5.0
"""log α at first: every entry is open."""
ALPHA_RATE = 1000.0
"""log α moves so many times faster than w: .1 beside 1e-4, as in the authors' code."""


class SparseDelta:
    """δ over the whole body as one vector of N entries: z ⊙ w, of which k are kept."""

    def __init__(
        self, w: nn.Parameter, log_alpha: nn.Parameter, k: int, l0: float, seed: int
    ) -> None:
        self.w, self.log_alpha, self.k, self.l0 = w, log_alpha, k, l0
        self._seed = seed
        self._noise = Generator(w.device).manual_seed(seed)

    def reseed(self, step: int) -> None:
        """Noise of a training step: a function of the seed and the step alone."""
        self._noise.manual_seed(self._seed * 1_000_003 + step)

    def sampled(self) -> Tensor:
        """z ⊙ w with z drawn from the hard concrete distribution."""
        u = torch.empty_like(self.w).uniform_(1e-6, 1 - 1e-6, generator=self._noise)
        noise = u.log() - (1 - u).log()
        return _stretched((noise + self.log_alpha) / _BETA) * self.w

    @torch.no_grad()
    def kept(self) -> tuple[Tensor, Tensor]:
        """(indices, values) of the k largest |δ|, without noise; indices rise."""
        delta = _stretched(self.log_alpha) * self.w
        indices = delta.abs().topk(self.k).indices.sort().values
        return indices, delta[indices]

    def stored(self) -> dict[str, Tensor]:
        indices, values = self.kept()
        return {"values": values, "indices": indices}

    def penalty(self) -> Tensor:
        """l0 times the expected number of open entries (equation 4 of Guo et al.)."""
        shift = _BETA * math.log(-_GAMMA / _ZETA)
        return self.l0 * (self.log_alpha - shift).sigmoid().sum()


def _stretched(logits: Tensor) -> Tensor:
    return (logits.sigmoid() * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)
