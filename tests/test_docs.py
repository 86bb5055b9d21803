"""What the documents say about the tree is so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from peftsearch import errors
from peftsearch.errors import PeftsearchError, TrialFailure
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyInfo, TrialResult
from peftsearch.records.trials_csv import COLUMNS
from peftsearch.study.storage.journal import JournalFile
from support.hostile import here
from support.hostile.world import SPACE

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


@pytest.mark.parametrize("name", [*StudyInfo.model_fields, *TrialResult.model_fields, *COLUMNS])
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


MADE = "peftsearch/design/forms/loha.py"
"""What docs/extending.md makes."""


def files_named(text: str) -> set[str]:
    """Paths of the tree in backticks, like `spaces/`; the folder of a file that the page makes."""
    named = re.findall(r"`((?:peftsearch|tests|spaces)/[\w./-]*)`", text)
    return {f"{Path(path).parent}/" if path == MADE else path for path in named}


def test_contributing_and_extending_name_the_same_files_and_all_are_there() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    adding = contributing[contributing.index("## Adding") : contributing.index("## Dependencies")]
    extending = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    named = files_named(adding)
    assert len(named) >= 15
    assert files_named(extending) - {"tests/test_docs_extending.py"} == named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/extending.md"])
def test_every_registry_is_in_the_file_that_is_named_with_it(page: str) -> None:
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    named = re.findall(r"`(_?[A-Z_]+)` (?:of|in) `(peftsearch/[\w/]+\.py)`", text)
    named += re.findall(r"`(_?[A-Z_]+)`, in `(peftsearch/[\w/]+\.py)`", text)
    assert len(named) >= 7
    for registry, path in named:
        assert re.search(rf"^{registry}\b", (ROOT / path).read_text(encoding="utf-8"), re.M), path


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_the_tree_that_a_page_names_is_there(page: Path) -> None:
    named = files_named(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def listed(text: str) -> Iterator[str]:
    """Names of files in the tree of docs/study-folder.md."""
    tree = re.search(r"^```\n(studies/NAME/\n.*?)^```", text, re.M | re.S)
    assert tree is not None
    for line in tree[1].splitlines()[1:]:
        names = re.split(r" {2,}", line.strip())[0]
        yield from (name.rstrip("/") for name in names.split(", ") if "00028" not in name)


@pytest.mark.slow
def test_the_study_folder_holds_what_its_page_lists(
    tmp_path: Path,
    tiny_bert: Path,
    tiny_sentiment_csv: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    words = ["search", "space.yaml", "--model", str(tiny_bert), "--study", "s"]
    assert here.run([*words, "--train", str(tiny_sentiment_csv), "--trials", "2"], bool) == 0
    folder = StudyFolder.open("s")
    trial = folder.trial(0)
    found = {path.name for path in (*folder.root.iterdir(), *trial.root.iterdir())}
    sometimes = (trial.checkpoint_path, trial.log_path, trial.samples_path)
    sometimes += (JournalFile(folder.journal_path).torn_path,)
    assert set(listed(STUDY_FOLDER)) == found - {"trials"} | {path.name for path in sometimes}
