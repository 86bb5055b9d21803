"""Devices: checking the name of one, and choosing one for each local worker.

Imports no torch before a device is tried, so that a wrong name is refused at once.
"""

from __future__ import annotations

import importlib.metadata
import re

from peftsearch.errors import MissingError

__all__ = [
    *("checked_device", "default_workers", "default_workers_here"),
    *("has_tf32", "refuse_no_tf32", "refuse_unknown_device", "worker_device"),
]

_DEVICE = re.compile(r"(cpu|cuda)(:[0-9]+)?")


def refuse_unknown_device(device: str) -> None:
    """Raise MissingError for a device that cannot be here, as far as is known without torch."""
    if _DEVICE.fullmatch(device) is None:
        raise _unusable(device, "expected cpu, cuda or cuda:N")
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return
    if device.startswith("cuda") and version.endswith("+cpu"):
        raise _unusable(device, f"torch {version} is built without CUDA")


def checked_device(device: str) -> str:
    """The name as it is, of a device that this machine has; else MissingError."""
    refuse_unknown_device(device)
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise _unusable(device, (str(error).splitlines() or ["unknown"])[0]) from error
    return device


def refuse_no_tf32(device: str) -> None:
    """Raise MissingError for a device whose matrix products cannot be in TF32."""
    # Elsewhere torch ignores the setting: results would be said to be in TF32, and are not.
    if not has_tf32(device):
        raise MissingError(
            f"precision tf32 needs a GPU with TF32 (NVIDIA Ampere or newer), which {device} is "
            "not: use fp32, or another --device"
        )


def has_tf32(device: str) -> bool:
    """Whether a device, which must be here, can compute matrix products in TF32."""
    if device.startswith("cpu"):
        return False
    import torch

    return torch.cuda.get_device_capability(device) >= (8, 0)


def default_workers(device: str, gpus: int) -> int:
    """The number of local workers where the user named none: one a GPU for `cuda`, else one."""
    return max(1, gpus) if device == "cuda" else 1


def default_workers_here(device: str) -> int:
    """`default_workers` with the GPUs of this machine."""
    if device != "cuda":
        return 1
    import torch

    return default_workers(device, torch.cuda.device_count())


def worker_device(device: str, worker: int, gpus: int) -> str:
    """The device of local worker number `worker`: for `cuda`, one of several GPUs in turn."""
    return f"cuda:{worker % gpus}" if device == "cuda" and gpus > 1 else device


def _unusable(device: str, why: str) -> MissingError:
    return MissingError(f"device '{device}' cannot be used here ({why}); try --device cpu")
