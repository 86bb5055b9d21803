"""Names of a configuration: its hash, for machines, and its one line, for people."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

from peftsearch.design.composition import Composition, Gated, Scaled
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import Constant, Form, Linear, Prefix, Relu
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place

LORA = (
    '{"head":{"pooler":"none","pooler_counts":false,"pooling":"mean"},'
    '"modifications":[{"composition":{"name":"scaled","s":2.0},'
    '"form":{"bias":false,"init":"lora","name":"linear"},'
    '"insertion":{"name":"parallel","reads":"sublayer_input"},'
    '"place":{"at":"attn.query+value","layers":null},"width":8}],'
    '"training":{"batch_size":32,"head_lr":0.001,"lr":{"linear":0.001},'
    '"max_grad_norm":1.0,"warmup":0.06,"weight_decay":0.01}}'
)


def test_a_hash_is_sha256_of_the_canonical_json() -> None:
    """The text is written by hand: recorded studies and exports depend on it staying so."""
    expected = hashlib.sha256(LORA.encode()).hexdigest()[:16]
    assert METHODS["lora"].configuration().hash == expected == "5101b7a0b4b1a3bf"


def shuffled(node: Any, draw: random.Random) -> Any:
    if isinstance(node, dict):
        items = [(key, shuffled(value, draw)) for key, value in node.items()]
        draw.shuffle(items)
        return dict(items)
    return [shuffled(value, draw) for value in node] if isinstance(node, list) else node


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_keys_in_a_file_does_not_matter(name: str) -> None:
    configuration = METHODS[name].configuration()
    again = Configuration.from_json(shuffled(configuration.to_json(), random.Random(1)))
    assert again.hash == configuration.hash


def test_what_changes_a_result_changes_the_hash() -> None:
    base = METHODS["mam"]
    others = [
        base.configuration(Head("first")),
        base.configuration(Head("mean", "trained")),
        base.configuration(Head("mean", "trained", pooler_counts=True)),
        base.configuration(training=Training(lr=(("relu", 0.5),))),
        base.configuration(training=Training(batch_size=8)),
        base.configuration(training=Training(warmup=0.5)),
        Configuration(tuple(m.on((0,)) for m in base.modifications)),
        Configuration(tuple(m.with_width(3) for m in base.modifications)),
    ]
    assert len({c.hash for c in (base.configuration(), *others)}) == 1 + len(others)


def test_a_learning_rate_of_a_form_that_is_not_there_changes_nothing() -> None:
    training = Training(lr=(("gelu", 0.5),))
    assert METHODS["lora"].configuration(training=training) == METHODS["lora"].configuration()


def test_the_line_of_the_specification_is_written_exactly_so() -> None:
    prefix = Modification(Prefix(), Place(("attn.heads",), (3, 4, 5)), composition=Gated(), width=8)
    adapter = Modification(Relu(), Place.parse("ffn.out"), composition=Scaled(4), width=64)
    line = "relu∥ffn.out r=64 s=4 + prefix@attn.heads l=8, layers 3–5"
    assert Configuration((prefix, adapter)).describe() == line
    assert Configuration((adapter, prefix)).describe() == line


ATTENTION = "attn.query+value"


@pytest.mark.parametrize(
    ("form", "place", "insertion", "composition", "width", "line"),
    [
        (Linear(), ATTENTION, Parallel(), None, 8, "linear∥attn.query+value r=8"),
        (Linear(), ATTENTION, Parallel(), Scaled(0.5), 8, "linear∥attn.query+value r=8 s=0.5"),
        (Relu(), "ffn.out", Sequential(), None, 64, "relu→ffn.out r=64"),
        (Relu(), "ffn.out", Parallel(), Scaled(), 4, "relu∥ffn.out r=4 s=learned"),
        (Relu(bias=True), "ffn.out", Parallel(), None, 4, "relu∥ffn.out (bias) r=4"),
        (
            *(Linear(), "ffn.out", Parallel("projection_input"), None, 4),
            "linear∥ffn.out (reads projection) r=4",
        ),
        (Prefix(), "attn.heads", Parallel(), None, 2, "ungated prefix@attn.heads l=2"),
        (Constant(), "biases", Parallel(), None, None, "constant@biases"),
        (Linear(), ATTENTION, Parallel(), None, (1, 1, 2), "linear∥attn.query+value r=1×2,2×1"),
    ],
)
def test_a_modification_in_one_line(
    form: Form,
    place: str,
    insertion: Insertion,
    composition: Composition | None,
    width: int | tuple[int, ...] | None,
    line: str,
) -> None:
    options = {} if composition is None else {"composition": composition}
    assert Modification(form, Place.parse(place), insertion, width=width, **options).describe() == (
        line
    )


@pytest.mark.parametrize(
    ("head", "line"),
    [
        (Head("mean"), "head only, mean pooling"),
        (Head("first", "trained"), "head and pooler only, first pooling"),
    ],
)
def test_a_configuration_without_modifications_in_one_line(head: Head, line: str) -> None:
    assert Configuration(head=head).describe() == line


def test_a_pooler_is_named_where_it_counts() -> None:
    counted = Head("mean", "trained", pooler_counts=True)
    assert METHODS["lora"].configuration(counted).describe().endswith(" + pooler")
    assert "pooler" not in METHODS["lora"].configuration(Head("mean", "trained")).describe()
