"""Devices: checking names, choosing one for each local worker, preparing a process for one.

Imports no torch before a device is tried, so that a wrong name is refused at once.
"""

from __future__ import annotations

import importlib.metadata
import re

from peftsearch.errors import MissingError
from peftsearch.wording import counted

__all__ = [
    *("checked_device", "default_workers", "default_workers_here"),
    *("has_tf32", "refuse_absent_device", "refuse_no_tf32", "refuse_tf32_on_a_cpu"),
    *("refuse_unknown_device", "use_device", "worker_device"),
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


def refuse_absent_device(device: str) -> None:
    """Raise MissingError for a GPU that this machine lacks. No context is made on any: a context
    takes some 0.5 GB of the GPU, and the process that starts the workers needs none.
    """
    refuse_unknown_device(device)
    if not device.startswith("cuda"):
        return
    import torch

    if not torch.cuda.is_available():
        raise _unusable(device, "torch finds no GPU that it can use")
    gpus = torch.cuda.device_count()
    if int(device.partition(":")[2] or 0) >= gpus:
        raise _unusable(device, f"the machine has {counted(gpus, 'GPU')}, numbered from 0")


def use_device(device: str) -> None:
    """Prepare this process for computing on a device; raise MissingError if the machine lacks it.

    For processes of our own, before they touch a GPU: settings of the whole process change.
    """
    refuse_absent_device(device)
    if not device.startswith("cuda"):
        return
    import torch

    if ":" in device:
        # Else pinned memory, events and whatever names no device make a context on GPU 0 as well.
        torch.cuda.set_device(device)
    # On compute capability 9.0 and above PyTorch prefers cuDNN's attention in half precision, which
    # builds a plan for every new (texts, length): reported are .4 s for a forward and .5 s for a
    # backward on a B200 with torch 2.11 (modelscope/FunASR#3704). Batches here have many lengths.
    torch.backends.cuda.enable_cudnn_sdp(False)


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


def refuse_tf32_on_a_cpu(device: str) -> None:
    """Raise MissingError for a CPU, without a look at GPUs: that would make a context on one."""
    if device.startswith("cpu"):
        refuse_no_tf32(device)


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
