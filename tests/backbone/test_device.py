"""Devices: others than cpu and cuda are refused before anything is loaded; one worker a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from peftsearch.backbone import device as device_module
from peftsearch.backbone.device import (
    checked_device,
    default_workers,
    refuse_absent_device,
    use_device,
    worker_device,
)
from peftsearch.backbone.loading.load import load_backbone
from peftsearch.errors import MissingError


def test_the_cpu_is_always_there() -> None:
    assert checked_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["", "gpu9", "meta", "cuda:99", "cpu\n", "mps:x", "\x1b[31m"])
def test_a_device_that_is_not_here_or_holds_no_numbers_is_one_sentence(
    device: str, tiny_bert: Path
) -> None:
    for refused in (checked_device, lambda name: load_backbone(str(tiny_bert), name)):
        with pytest.raises(MissingError, match="cannot be used here"):
            refused(device)


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [("cpu", 0, 1), ("cpu", 8, 1), ("cuda", 1, 1), ("cuda", 8, 8), ("cuda:3", 8, 1)],
)
def test_as_many_workers_as_gpus_where_cuda_is_asked_for(
    device: str, gpus: int, expected: int
) -> None:
    assert default_workers(device, gpus) == expected


def test_workers_take_the_gpus_in_turn() -> None:
    assert [worker_device("cuda", worker, 2) for worker in range(4)] == [
        *("cuda:0", "cuda:1"),
        *("cuda:0", "cuda:1"),
    ]
    assert worker_device("cuda", 3, 1) == "cuda"
    assert worker_device("cuda:1", 0, 8) == "cuda:1"
    assert worker_device("cpu", 5, 8) == "cpu"


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """As torch would report them; yields the devices made current."""
    current: list[str] = []
    monkeypatch.setattr(device_module.importlib.metadata, "version", lambda name: "2.13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield current
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.parametrize(("device", "made"), [("cuda:1", ["cuda:1"]), ("cuda", [])])
def test_a_process_of_ours_uses_its_gpu_without_attention_of_cudnn(
    device: str, made: list[str], two_gpus: list[str]
) -> None:
    use_device(device)
    assert two_gpus == made
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_for_a_cpu_nothing_is_set(two_gpus: list[str]) -> None:
    use_device("cpu")
    assert two_gpus == []
    assert torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_absent_is_refused_by_its_number() -> None:
    for refused in (refuse_absent_device, use_device):
        with pytest.raises(MissingError, match="the machine has 2 GPUs, numbered from 0"):
            refused("cuda:2")


def test_gpus_that_torch_cannot_use_are_refused(
    two_gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingError, match="torch finds no GPU"):
        refuse_absent_device("cuda")
