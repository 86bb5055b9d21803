"""docs/python.md and the examples in public docstrings run as they stand."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import peftsearch
from support.readme import readme_commands

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_blocks_of_the_page_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [c for c in readme_commands(PAGE) if c.kind == "python" and c.skip is None]
    assert len(blocks) >= 5
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block.text, "docs/python.md", "exec"), names)


def test_every_public_name_is_described() -> None:
    functions = [n for n in peftsearch.__all__ if callable(getattr(peftsearch, n))]
    assert [n for n in functions if not inspect.getdoc(getattr(peftsearch, n))] == []
