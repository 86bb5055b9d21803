"""Diff-pruning's δ: hard-concrete gates in training, the k largest entries in evaluation.

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
"""log α at first: σ(5) stretched is above 1, so that every entry is open."""
ALPHA_RATE = 1000.0
"""Learning rate of log α over that of w: .1 beside 1e-4, as in the authors' code."""


class SparseDelta:
    """δ = z ⊙ w over the whole body as one vector [entries], of which the k largest are kept.

    `w` and `log_alpha` are [entries], trained.
    """

    def __init__(
        self, w: nn.Parameter, log_alpha: nn.Parameter, k: int, l0: float, seed: int
    ) -> None:
        self.w, self.log_alpha, self.k, self.l0 = w, log_alpha, k, l0
        self._seed = seed
        self._noise = Generator(w.device).manual_seed(seed)

    def reseed(self, step: int) -> None:
        """Restart the noise for a training step.

        A function of seed and step alone: a resumed run and a batch computed in pieces see the
        gates of an uninterrupted, whole one.
        """
        # Distinct for all seeds and steps below a million steps.
        self._noise.manual_seed(self._seed * 1_000_003 + step)

    def sampled(self) -> Tensor:
        """δ [entries] with z drawn from the hard concrete distribution."""
        # Away from 0 and 1, where the logit of u is infinite.
        u = torch.empty_like(self.w).uniform_(1e-6, 1 - 1e-6, generator=self._noise)
        noise = u.log() - (1 - u).log()
        return _stretched((noise + self.log_alpha) / _BETA) * self.w

    @torch.no_grad()
    def kept(self) -> tuple[Tensor, Tensor]:
        """(indices [k], rising, values [k]) of the k largest |δ|, with z's noise left out."""
        delta = _stretched(self.log_alpha) * self.w
        indices = delta.abs().topk(self.k).indices.sort().values
        return indices, delta[indices]

    def stored(self) -> dict[str, Tensor]:
        """The tensors of an export: `values` [k] and `indices` [k]."""
        indices, values = self.kept()
        return {"values": values, "indices": indices}

    def penalty(self) -> Tensor:
        """A scalar: l0 times the expected number of open entries (Guo et al., equation 4)."""
        shift = _BETA * math.log(-_GAMMA / _ZETA)
        return self.l0 * (self.log_alpha - shift).sigmoid().sum()


def _stretched(logits: Tensor) -> Tensor:
    """z in [0, 1] from logits of its shape: σ stretched to (γ, ζ), so that 0 and 1 are reached."""
    return (logits.sigmoid() * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)
