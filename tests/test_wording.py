"""Counts agree with their nouns, wherever one is printed; measurements and problems read well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from peftsearch.wording import agree, counted, duration, first_problem, measured

SOURCES = sorted((Path(__file__).parents[1] / "peftsearch").rglob("*.py"))
NOUNS = "rows lines labels texts trials workers cores points examples layers widths tensors choices"
UNCOUNTED = re.compile(
    r"\{(?:len\([^{}]*\)|\w*count|idle|empty|shared)(?::,)?\} (?:more )?"
    rf"(?:{NOUNS.replace(' ', '|')})\b"
)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (12000, "12,000 rows")],
)
def test_one_is_singular_and_nothing_else(count: int, text: str) -> None:
    assert counted(count, "row") == text


def test_an_irregular_plural_is_said() -> None:
    assert [counted(n, "child", "children") for n in (1, 2)] == ["1 child", "2 children"]
    assert [agree(n, "is", "are") for n in (0, 1, 2)] == ["are", "is", "are"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.4, "0 s"), (12, "12 s"), (89, "89 s"), (90, "1.5 minutes"), (360, "6 minutes")),
        *((5400, "1.5 hours"), (144000, "40 hours")),
    ],
)
def test_a_duration_is_in_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_no_message_writes_a_plural_behind_a_count_that_may_be_one() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in SOURCES}
    assert len(texts) > 100
    found = {name: UNCOUNTED.findall(text) for name, text in texts.items()}
    assert {name: there for name, there in found.items() if there} == {}


@pytest.mark.parametrize(
    ("value", "error", "decimals", "text"),
    [
        (0.753, 0.01364, 4, "0.7530 ± 0.0136"),
        (21.9, None, 2, "21.90"),
        (21.9, float("nan"), 2, "21.90"),
        (-0.00001, None, 2, "0.00"),
        (float("nan"), 0.1, 4, "–"),
        (None, None, 4, "–"),
    ],
)
def test_a_measurement_has_its_decimals_and_its_error(
    value: float | None, error: float | None, decimals: int, text: str
) -> None:
    assert measured(value, error, decimals) == text


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    worst: float

    @field_validator("worst")
    @classmethod
    def _is_small(cls, value: float) -> float:
        if value > 1:
            raise ValueError("must be 1 or less")
        return value


class Outer(BaseModel):
    inner: Inner


@pytest.mark.parametrize(
    ("inner", "kind", "text"),
    [
        ({}, "missing", "inner.worst: Field required"),
        ({"wurst": 1}, "extra_forbidden", "inner.wurst: Extra inputs are not permitted"),
        ({"worst": 2}, "value_error", "inner.worst: must be 1 or less"),
    ],
)
def test_a_problem_names_its_key(inner: dict[str, float], kind: str, text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Outer.model_validate({"inner": inner})
    problem = first_problem(refused.value)
    assert (problem.kind, str(problem)) == (kind, text)
    assert str(problem.within("outer")) == f"outer.{text}"
