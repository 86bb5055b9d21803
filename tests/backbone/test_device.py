"""Devices that can be computed on, and all others refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.backbone.device import checked_device
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
