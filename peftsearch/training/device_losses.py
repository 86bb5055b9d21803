"""Losses that stay on their device until one is read: all of them are then copied at once.

A copy to the host waits for everything launched before it. K runs of a cohort that read 16 losses
each, all after the same pass, make one copy rather than 16·K; runs that read after other passes
cause copies of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["DeviceLoss", "DeviceLosses"]


@dataclass
class _Pass:
    """The losses of one pass, [n]: on the device, or once copied as numbers."""

    on_device: Tensor
    on_host: list[float] | None = None


@dataclass(frozen=True)
class DeviceLoss:
    """One loss of a pass."""

    owner: DeviceLosses
    of: _Pass
    index: int

    def value(self) -> float:
        """The loss; waits for the device, unless a loss added later was read before."""
        if self.of.on_host is None:
            self.owner.copy()
        assert self.of.on_host is not None
        return self.of.on_host[self.index]


@dataclass
class DeviceLosses:
    """Losses of passes, of one run or of all that share the passes."""

    _waiting: list[_Pass] = field(default_factory=list)

    def add(self, losses: Tensor) -> list[DeviceLoss]:
        """Each of the losses [n] of a pass; the host does not wait for them."""
        one = _Pass(losses.detach())
        self._waiting.append(one)
        return [DeviceLoss(self, one, index) for index in range(len(losses))]

    def copy(self) -> None:
        """Copy all losses that were not copied yet to the host."""
        values = iter(_on_host(torch.cat([one.on_device for one in self._waiting])))
        for one in self._waiting:
            one.on_host = [next(values) for _ in range(len(one.on_device))]
        self._waiting = []


def _on_host(losses: Tensor) -> list[float]:
    """Losses [n] as numbers, in one copy."""
    return losses.tolist()
