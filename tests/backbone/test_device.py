"""Devices: others than cpu and cuda are refused before anything is loaded; one worker a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.backbone.device import checked_device, default_workers, worker_device
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
