"""Every public name has an example in its docstring, and the example gives what it says."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import peftsearch
from peftsearch.api.keywords import flags_to_keywords
from peftsearch.design.methods import Method

PUBLIC: dict[str, Any] = {
    name: Method if name == "METHODS" else getattr(peftsearch, name)
    for name in peftsearch.__all__
    if name != "__version__"
}
"""Public name → what has its docstring; METHODS is a dictionary of `Method`."""
OBJECTS = {**PUBLIC, "flags_to_keywords": flags_to_keywords}


def examples_of(name: str) -> list[doctest.DocTest]:
    """The examples of a function, or of a class and its public methods and properties."""
    globs = {
        "Path": Path,
        "peftsearch": peftsearch,
        "torch": torch,
        "transformers": transformers,
        "attach": peftsearch.attach,
        "flags_to_keywords": flags_to_keywords,
    }
    found = doctest.DocTestFinder(recurse=True).find(OBJECTS[name], name, globs=globs)
    return [test for test in found if test.examples]


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTS)
def test_the_examples_give_what_they_say(name: str, home: Path) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    for test in examples_of(name):
        runner.run(test)
    assert runner.summarize().failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name: str) -> None:
    assert examples_of(name)


@pytest.mark.parametrize("name", ["Study", "Attached"])
def test_so_has_every_method_of_the_objects_that_functions_return(name: str) -> None:
    """Methods of `Configuration` and `Space` belong to the design space's own pages."""
    own = {
        key
        for key, value in vars(PUBLIC[name]).items()
        if not key.startswith("_") and (callable(value) or isinstance(value, property))
    }
    shown = {test.name.rpartition(".")[2] for test in examples_of(name)}
    in_class = inspect.getdoc(PUBLIC[name]) or ""
    assert {key for key in own - shown if f".{key}" not in in_class} == set()
