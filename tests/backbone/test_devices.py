"""One worker a GPU."""

from __future__ import annotations

import pytest

from peftsearch.backbone.devices import device_of, workers_for


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [("cpu", 0, 1), ("cpu", 8, 1), ("cuda", 1, 1), ("cuda", 8, 8), ("cuda:3", 8, 1)],
)
def test_as_many_workers_as_gpus_where_cuda_is_asked_for(
    device: str, gpus: int, expected: int
) -> None:
    assert workers_for(device, gpus) == expected


def test_workers_take_the_gpus_in_turn() -> None:
    assert [device_of("cuda", worker, 2) for worker in range(4)] == [
        *("cuda:0", "cuda:1"),
        *("cuda:0", "cuda:1"),
    ]
    assert device_of("cuda", 3, 1) == "cuda"
    assert device_of("cuda:1", 0, 8) == "cuda:1"
    assert device_of("cpu", 5, 8) == "cpu"
