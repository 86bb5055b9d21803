"""Counts agree with their nouns, wherever one is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from peftsearch.wording import agree, counted, duration

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
