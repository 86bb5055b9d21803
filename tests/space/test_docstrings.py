"""The examples in the docstrings of space/ give what they say."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

import peftsearch
from peftsearch.backbone.loading.load import load_shapes
from peftsearch.design.cost.trial import Workload
from peftsearch.design.methods import METHODS
from peftsearch.space import (
    allocate,
    coverage,
    decode,
    encode,
    placed,
    predicted_time,
    random_samples,
    space,
)
from peftsearch.space.random_samples import RandomSuggestions, draw_samples
from peftsearch.space.space import load_space

MODULES = (allocate, coverage, decode, encode, placed, predicted_time, random_samples, space)
NAMES = {
    "METHODS": METHODS,
    "RandomSuggestions": RandomSuggestions,
    "Workload": Workload,
    "draw_samples": draw_samples,
    "load_shapes": load_shapes,
    "load_space": load_space,
    "peftsearch": peftsearch,
}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_examples_give_what_they_say(module: ModuleType) -> None:
    found = doctest.testmod(module, extraglobs=NAMES)
    assert found.attempted >= 2
    assert found.failed == 0
