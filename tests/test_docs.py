"""What the documents say about the tree is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from peftsearch import errors
from peftsearch.errors import PeftsearchError, TrialFailure
from peftsearch.search.records import StudyInfo, TrialResult

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")])
STUDY_FOLDER = (ROOT / "docs" / "study-folder.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_into_the_repository_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_every_package_is_in_the_architectures_table() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = [path.parent.name for path in (ROOT / "peftsearch").glob("*/__init__.py")]
    assert len(packages) >= 10
    assert [name for name in packages if f"| `{name}/` |" not in text] == []


def test_every_exception_is_in_the_table_with_its_exit_code() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    listed = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| `(\w+)`", text, re.M)}
    raised = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, PeftsearchError)
        and not issubclass(kind, TrialFailure)
        and kind is not PeftsearchError
    }
    assert listed == raised


@pytest.mark.parametrize("name", [*StudyInfo.model_fields, *TrialResult.model_fields])
def test_every_recorded_field_is_explained(name: str) -> None:
    assert f"`{name}`" in STUDY_FOLDER


def test_every_test_that_keeps_a_promise_is_there() -> None:
    """`file.py::test`, or `::test` for another of the file named before it."""
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]*(?:\.py)?)::(\w+)`", text)
    assert len(named) >= 20
    file = ""
    for path, test in named:
        file = path or file
        assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
