"""Configurations from files that people edit: any mistake is a sentence, never a traceback."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from peftsearch.design.composition import Gated, Scaled
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import Prefix, Relu
from peftsearch.design.insertion import Parallel
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.errors import ConfigurationError

EVERYTHING = Configuration(
    (
        Modification(Prefix(), Place.parse("attn.heads"), composition=Gated(), width=3),
        Modification(
            Relu(), Place(("ffn.out",), (0, 1)), Parallel("projection_input"), Scaled(2), (2, 3)
        ),
    ),
    Head("first", "trained"),
    Training(lr=(("relu", 0.01),)),
)
WRONG: list[Any] = [None, True, -1, 0.5, float("nan"), "x", [], ["x"], [0.5], {}, {"x": 1}, 10**30]

Path = tuple[str | int, ...]


def leaves_and_branches(node: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    children: Any = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    for key, child in children:
        yield from leaves_and_branches(child, (*path, key))


def replaced(document: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(document)
    node = changed
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return changed


def accepted(document: Any) -> Configuration | None:
    """The configuration, or None where it is refused; any other error escapes."""
    try:
        return Configuration.from_json(document)
    except ConfigurationError:
        return None


@pytest.mark.parametrize("path", list(leaves_and_branches(EVERYTHING.to_json())), ids=str)
def test_a_wrong_value_is_refused_or_reads_back_equal(path: Path) -> None:
    for value in WRONG:
        configuration = accepted(replaced(EVERYTHING.to_json(), path, value))
        if configuration is None:
            continue
        text = json.dumps(configuration.to_json(), allow_nan=False)
        again = Configuration.from_json(json.loads(text))
        assert again == configuration, value
        assert again.hash == configuration.hash, value


@pytest.mark.parametrize("path", list(leaves_and_branches(EVERYTHING.to_json()))[1:], ids=str)
def test_a_key_left_out_has_its_default_or_is_refused(path: Path) -> None:
    document = EVERYTHING.to_json()
    node = document
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    configuration = accepted(document)
    assert configuration is None or configuration == Configuration.from_json(
        configuration.to_json()
    )


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("modifications",), 3, "modifications must be a list"),
        (("modifications", 1, "form", "init"), "bret", "did you mean 'bert'"),
        (("modifications", 1, "form", "bias"), "yes", "bias"),
        (("modifications", 1, "insertion", "reads"), "projektion_input", "did you mean"),
        (("modifications", 1, "place", "layers"), 3, "layers"),
        (("modifications", 1, "place", "layers"), [0.5, 1], "layers"),
        (("modifications", 1, "composition", "s"), "4", "scale s=4"),
        (("modifications", 1, "width"), [2, 3, 4], "3 widths for 2 layers"),
        (("head",), [], "head must be a mapping"),
        (("head", "pooler_counts"), 1, "pooler_counts"),
        (("training", "lr"), 0.1, "lr must be a mapping"),
        (("training", "lr"), {"relu": "1e-3"}, "lr of relu"),
        (("training", "warmup"), None, "warmup"),
    ],
)
def test_a_mistake_is_named(path: Path, value: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Configuration.from_json(replaced(EVERYTHING.to_json(), path, value))


def test_numbers_are_the_same_written_with_or_without_a_point() -> None:
    document = METHODS["mam"].configuration().to_json()
    whole = {"head_lr": 1, "weight_decay": 0, "warmup": 0, "max_grad_norm": 1}
    document["training"] |= whole
    pointed = copy.deepcopy(document)
    pointed["training"] |= {key: float(value) for key, value in whole.items()}
    first, second = Configuration.from_json(document), Configuration.from_json(pointed)
    assert first == second
    assert first.hash == second.hash
