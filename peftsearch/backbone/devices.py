"""Which device each local worker computes on."""

from __future__ import annotations

__all__ = ["device_of", "workers_for", "workers_here"]


def workers_for(device: str, gpus: int) -> int:
    """How many local workers make sense where the user named no number: one a GPU."""
    return max(1, gpus) if device == "cuda" else 1


def workers_here(device: str) -> int:
    """The same on this machine."""
    if device != "cuda":
        return 1
    import torch

    return workers_for(device, torch.cuda.device_count())


def device_of(device: str, worker: int, gpus: int) -> str:
    """`cuda` among several GPUs is one of them, in turn; anything else is what it says."""
    return f"cuda:{worker % gpus}" if device == "cuda" and gpus > 1 else device
