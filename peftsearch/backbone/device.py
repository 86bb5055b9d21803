"""Which device models and data are put on."""

from __future__ import annotations

import torch

from peftsearch.errors import MissingError

__all__ = ["checked_device"]

_TYPES = ("cpu", "cuda")


def checked_device(device: str) -> str:
    """A device that this machine has, or MissingError."""
    try:
        if torch.device(device).type not in _TYPES:
            raise RuntimeError("cpu, cuda or cuda:N is wanted")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise MissingError(
            f"device '{device}' cannot be used here ({why}); try --device cpu"
        ) from error
    return device
