"""Losses on a device: reading one copies all that wait, and a value is the loss, bit for bit."""

from __future__ import annotations

import pytest
import torch

from peftsearch.training import device_losses
from peftsearch.training.device_losses import DeviceLosses


def test_one_copy_serves_every_loss_added_before(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[list[float]] = []
    inner = device_losses._on_host

    def noted(losses: torch.Tensor) -> list[float]:
        copied.append(inner(losses))
        return copied[-1]

    monkeypatch.setattr(device_losses, "_on_host", noted)
    losses = DeviceLosses()
    first = losses.add(torch.tensor([0.1, 0.2]))
    second = losses.add(torch.tensor([0.3], requires_grad=True))
    assert copied == []
    assert first[1].value() == torch.tensor(0.2).item()
    assert [loss.value() for loss in (*first, *second)] == torch.tensor([0.1, 0.2, 0.3]).tolist()
    assert len(copied) == 1
    assert losses.add(torch.tensor([7.0]))[0].value() == 7.0
    assert [len(values) for values in copied] == [3, 1]


def test_a_copy_that_failed_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = DeviceLosses()
    (loss,) = losses.add(torch.tensor([0.5]))
    with monkeypatch.context() as patched:
        patched.delattr(device_losses, "_on_host")
        with pytest.raises(NameError):
            loss.value()
    assert loss.value() == 0.5
