"""What is sent to a device arrives as it was; to a GPU out of pinned memory, without waiting."""

from __future__ import annotations

import pytest
import torch

from peftsearch.task.tokens.transfer import to_device


def test_on_the_same_device_nothing_is_copied() -> None:
    values = torch.arange(3)
    assert to_device(values, "cpu") is values


def test_to_a_gpu_values_are_pinned_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by what torch is asked for: most machines have no GPU."""
    asked: list[object] = []

    def pinned(self: torch.Tensor) -> torch.Tensor:
        asked.append("pinned")
        return self

    def to(self: torch.Tensor, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
        asked.append((str(device), non_blocking))
        return self

    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "to", to)
    to_device(torch.arange(3), "cuda:1")
    assert asked == ["pinned", ("cuda:1", True)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_values_arrive() -> None:
    values = torch.randn(1000)
    assert torch.equal(to_device(values, "cuda").cpu(), values)
