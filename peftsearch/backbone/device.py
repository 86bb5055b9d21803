"""Which device models and data are put on."""

from __future__ import annotations

import importlib.metadata
import re

from peftsearch.errors import MissingError

__all__ = ["checked_device", "refuse_unknown_device"]

_DEVICE = re.compile(r"(cpu|cuda)(:[0-9]+)?")


def refuse_unknown_device(device: str) -> None:
    """MissingError for a device that cannot be here, as far as is known without importing torch."""
    if _DEVICE.fullmatch(device) is None:
        raise _unusable(device, "cpu, cuda or cuda:N is wanted")
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return
    if device.startswith("cuda") and version.endswith("+cpu"):
        raise _unusable(device, f"torch {version} is built without CUDA")


def checked_device(device: str) -> str:
    """A device that this machine has, or MissingError."""
    refuse_unknown_device(device)
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise _unusable(device, (str(error).splitlines() or ["unknown"])[0]) from error
    return device


def _unusable(device: str, why: str) -> MissingError:
    return MissingError(f"device '{device}' cannot be used here ({why}); try --device cpu")
