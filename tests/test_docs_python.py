"""docs/python.md and docs/python.ipynb run as they stand, on a tiny model and for one trial."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import peftsearch
from support.readme import readme_commands
from support.worker_here import search_in_this_process

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "python.md").read_text(encoding="utf-8")
NOTEBOOK: dict[str, Any] = json.loads((DOCS / "python.ipynb").read_text(encoding="utf-8"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder; a search's worker is this process."""
    monkeypatch.chdir(tmp_path)
    search_in_this_process(monkeypatch)


def made_small(code: str, model: Path) -> str:
    return code.replace("demo:minilm", str(model)).replace("minutes=6", "trials=1")


def displayed(code: str, names: dict[str, Any], file: str) -> Any:
    """Run a cell as a notebook does; the value of the expression that it ends with, or None."""
    *statements, last = ast.parse(code).body
    if not isinstance(last, ast.Expr):
        exec(compile(code, file, "exec"), names)
        return None
    exec(compile(ast.Module(statements, []), file, "exec"), names)
    return eval(compile(ast.Expression(last.value), file, "eval"), names)


@pytest.mark.slow
def test_the_blocks_of_the_page_run_in_order(here: None, tiny_bert: Path) -> None:
    blocks = [c for c in readme_commands(PAGE) if c.kind == "python" and c.skip is None]
    assert len(blocks) >= 9
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        exec(compile(made_small(block.text, tiny_bert), "docs/python.md", "exec"), names)


@pytest.mark.slow
def test_the_cells_of_the_notebook_run_in_order_and_show_what_they_end_with(
    here: None, tiny_bert: Path
) -> None:
    cells = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = [displayed(made_small(cell, tiny_bert), names, "docs/python.ipynb") for cell in cells]
    kinds = [type(value).__name__ for value in shown if value is not None]
    assert kinds == ["Study", "DataFrame", "DataFrame", "Figure", "list", "Attached", "float"]
    assert "<table" in names["study"]._repr_html_()


def test_the_notebook_is_kept_without_outputs() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 4)
    code = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []


def test_every_public_name_is_described() -> None:
    functions = [n for n in peftsearch.__all__ if callable(getattr(peftsearch, n))]
    assert [n for n in functions if not inspect.getdoc(getattr(peftsearch, n))] == []
