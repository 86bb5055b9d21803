"""Examples in docstrings run as they stand, and every value of a dimension has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

from peftsearch.design.composition import COMPOSITIONS
from peftsearch.design.form import FORMS
from peftsearch.design.insertion import INSERTIONS


def examples(name: str) -> list[doctest.DocTest]:
    """The examples of a module, each in a namespace of its own: they import what they use."""
    found = doctest.DocTestFinder().find(importlib.import_module(name), name)
    for test in found:
        test.globs = {"__name__": "example"}
    return [test for test in found if test.examples]


ROOT = Path(__file__).parents[2]
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("design", "backbone")
    for path in sorted((ROOT / "peftsearch" / package).rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_give_what_they_say(name: str) -> None:
    said: list[str] = []
    for test in examples(name):
        doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("kind", [*FORMS.values(), *COMPOSITIONS.values(), *INSERTIONS.values()])
def test_every_value_of_a_dimension_is_described_with_an_example(kind: type) -> None:
    text = inspect.getdoc(kind) or ""
    assert ">>>" in text
    assert kind.__name__ in text.split(">>>", 1)[1], "the example uses it"
    if kind not in INSERTIONS.values():
        assert re.search(r"Parameters: ", text)
