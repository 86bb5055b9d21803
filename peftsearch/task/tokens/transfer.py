"""Transfer of tensors to the compute device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["to_device"]


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """The same values on a device, of the same shape. From pinned memory a GPU copies them while it
    computes something else, and the host does not wait.
    """
    device = torch.device(device)
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
