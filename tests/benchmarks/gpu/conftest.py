"""The scripts of benchmarks/gpu as modules, for one test each."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks" / "gpu"


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[str], ModuleType]]:
    """Name of a script → its module, on a CPU, with results in the test's folder."""
    for name, value in {"KIT_DEVICE": "cpu", "OUT": tmp_path, "KIT_SCRATCH": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)
