"""The examples in the docstrings of task/ give what they say; every metric and kind has one."""

from __future__ import annotations

import doctest
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from peftsearch.task import spec
from peftsearch.task.kinds import table as kinds
from peftsearch.task.kinds.table import KINDS
from peftsearch.task.metrics import base, classification, resampling
from peftsearch.task.metrics import table as metrics
from peftsearch.task.metrics.table import METRICS
from peftsearch.task.rows.columns import Columns
from peftsearch.task.rows.rows import Rows

NAMES = {"Columns": Columns, "METRICS": METRICS, "Rows": Rows, "np": np, "pd": pd}
EXAMPLES = {
    **{f"metric {name}": metric.score for name, metric in METRICS.items()},
    **{f"kind {name}": type(kind) for name, kind in KINDS.items()},
    "TaskSpec": spec.TaskSpec,
    "Metric": base.Metric,
}
MODULES = sorted({example.__module__ for example in EXAMPLES.values()})


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_give_what_they_say(name: str) -> None:
    assert_true(sys.modules[name])


@pytest.mark.parametrize("module", [kinds, metrics, resampling, classification])
def test_so_do_those_of_the_tables(module: ModuleType) -> None:
    assert_true(module)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_every_metric_and_kind_has_an_example(example: object) -> None:
    assert ">>> " in (example.__doc__ or "")


def assert_true(module: ModuleType) -> None:
    found = doctest.testmod(module, extraglobs=NAMES)
    assert found.attempted
    assert found.failed == 0
