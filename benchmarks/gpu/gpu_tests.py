"""A plugin of pytest for tests on a GPU: CUDA graphs whatever torch's version.

    python -m pytest -p gpu_tests TESTS

Test files that have moved since a command was written are found by their names.
"""

from __future__ import annotations

import pytest
from common import ON_GPU, ROOT
from cuda_graphs import always_record


def pytest_configure(config: pytest.Config) -> None:
    config.args[:] = [present(argument) for argument in config.args]
    if ON_GPU:
        always_record()


def present(path: str) -> str:
    """The path of a test file; of one that is not there, that of the only one with its name."""
    if (ROOT / path).exists():
        return path
    named = list((ROOT / "tests").rglob(path.rpartition("/")[2]))
    return str(named[0]) if len(named) == 1 else path
