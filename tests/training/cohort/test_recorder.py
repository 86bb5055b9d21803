"""Recorders of CUDA graphs, as far as they work without a GPU: versions of torch, waits noticed."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.torch_version import TorchVersion

from peftsearch.training.cohort import recorder
from peftsearch.training.cohort.recorder import recorder_for


@pytest.mark.parametrize(
    ("version", "survives"),
    [
        ("2.6.0", None),
        ("2.10.1+cu128", None),
        ("2.11.0a0+git1234567", None),
        ("2.11.0+cu128", False),
        ("2.12.1", False),
        ("2.13.0a0+1234567.nv26.06", False),
        ("2.13.0+cu130", True),
        ("3.0.0", True),
    ],
)
def test_graphs_from_torch_2_11_and_after_an_error_from_2_13(
    version: str, survives: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    found = recorder_for(torch.device("cuda"))
    assert (None if found is None else found.survives_errors) is survives
    assert recorder_for(torch.device("cpu")) is None


def test_waits_for_the_device_are_noticed_and_other_warnings_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modes: list[object] = [0]

    def set_mode(mode: object) -> None:
        modes.append(mode)
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with recorder._waits_noticed() as waits:
            warnings.warn("something else", stacklevel=1)
            warnings.warn("called a synchronizing CUDA operation (Triggered at …)", stacklevel=1)
            assert modes[-1] == "warn"
    assert [str(one.message) for one in heard] == ["something else"]
    assert len(waits) == 1
    assert waits[0].startswith("test_recorder.py:")
    assert modes == [0, "warn", 0]
