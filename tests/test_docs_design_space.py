"""docs/design-space.md lists the registries whole, and every reason of validity with an example."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.design.composition import (
    COMPOSITIONS,
    Add,
    Composition,
    Dora,
    Gated,
    Scaled,
    SigmoidGate,
)
from peftsearch.design.form import FORMS, Form, Linear, Prefix, Relu, Rescale
from peftsearch.design.insertion import INSERTIONS, Insertion, Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import PLACES, Place
from peftsearch.design.validity import why_invalid

PAGE = (Path(__file__).parents[1] / "docs" / "design-space.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    (body,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    return str(body)


def table(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize(
    ("title", "registry"),
    [
        ("Functional form: how is Δh computed?", FORMS),
        ("Modified representation: which h?", PLACES),
        ("Insertion form: what is Δh computed from?", INSERTIONS),
        ("Composition: how does Δh join h?", COMPOSITIONS),
    ],
)
def test_a_dimensions_table_is_its_registry_in_order(title: str, registry: Any) -> None:
    assert [row[0].strip("` ") for row in table(title)] == list(registry)


def test_widths_and_meanings_are_those_of_the_registries() -> None:
    for name, _, width, _ in table("Functional form: how is Δh computed?"):
        assert (FORMS[name].width_symbol or "–") == width
    for name, meaning in table("Modified representation: which h?"):
        assert PLACES[name.strip("`")].meaning == meaning


POINTS = (
    Modification(Relu(), Place.parse("ffn.out"), composition=Scaled(4), width=64),
    Modification(Relu(), Place.parse("ffn.out"), Sequential(), width=64),
    Modification(Prefix(), Place.parse("attn.heads", (3, 4, 5)), composition=Gated(), width=8),
    Modification(Linear(), Place.parse("attn.query+value"), width=(1, 1, 1, 2, 2, 2)),
    Modification(
        Linear(), Place.parse("ffn.out"), Parallel("projection_input"), Scaled(4), width=8
    ),
    Modification(Linear(), Place.parse("attn.query+value"), composition=Dora(2), width=8),
    Modification(Prefix(), Place.parse("attn.heads"), composition=SigmoidGate(), width=10),
    Modification(Rescale(), Place.parse("attn.key+value"), Sequential()),
    Modification(Relu(), Place.parse("attn.heads@cross"), width=16),
)


def test_the_lines_shown_are_how_points_describe_themselves() -> None:
    shown = [line.split("   ")[0] for line in PAGE.split("```")[1].strip().splitlines()]
    assert shown == [point.describe() for point in POINTS]
    assert all(point.within(load_shapes("config:bart-large")) for point in POINTS[4:])


def made(registry: dict[str, Any], text: str) -> Any:
    """`linear init=pissa` → Linear(init="pissa")."""
    name, *options = text.split(" ")
    pairs = (option.split("=") for option in options)
    return registry[name](**{key: {"True": True}.get(value, value) for key, value in pairs})


REASONS = table("What is never sampled")


@pytest.mark.parametrize("row", REASONS, ids=lambda row: " ".join(row[:4]))
def test_a_combination_of_the_table_is_refused_with_its_reason(row: list[str]) -> None:
    form, place, insertion, composition, reason = (cell.strip("`") for cell in row)
    found = why_invalid(
        made(FORMS, form),
        Place.parse(place),
        made(INSERTIONS, insertion),
        made(COMPOSITIONS, composition),
    )
    assert found == reason


def test_no_reason_is_missing_from_the_table() -> None:
    listed = {same(row[4]) for row in REASONS}
    forms: list[Form] = [form() for form in FORMS.values()]
    forms += [Linear("pissa"), Relu(bias=True), Linear(bias=True)]
    insertions: list[Insertion] = [
        *(Parallel(), Parallel("projection_input"), Parallel("residual_stream"), Sequential())
    ]
    compositions: list[Composition] = [kind() for kind in COMPOSITIONS.values()]
    places = [Place((name,)) for name in PLACES] + [Place.parse("ffn.gate+activated")]
    for form, place, insertion, composition in product(forms, places, insertions, compositions):
        reason = why_invalid(form, place, insertion, composition)
        assert reason is None or same(reason) in listed, reason


def same(reason: str) -> str:
    """One reason that names what it is given stands for all."""
    reason = re.sub(r"^place '[\w+.]+' takes", "place … takes", reason)
    reason = re.sub(r"^the (dense|sparse) form", "the … form", reason)
    reason = re.sub(r"^(DoRA|VeRA|PiSSA) adapts", "… adapts", reason)
    return re.sub(r"composition '\w+'", "composition …", reason)


def test_the_points_shown_are_refused_by_nothing() -> None:
    for point in POINTS:
        assert why_invalid(point.form, point.place, point.insertion, point.composition) is None
    assert why_invalid(Linear(), Place.parse("attn.query"), Parallel(), Add()) is None
