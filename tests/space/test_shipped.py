"""The shipped spaces are found in a checkout and in a wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.errors import MissingError
from peftsearch.space.file import shipped

ROOT = Path(__file__).parents[2]


def test_every_yaml_file_of_the_folder_spaces_is_shipped_under_its_name() -> None:
    files = {path.stem: path.read_text() for path in (ROOT / "spaces").glob("*.yaml")}
    found = {name: path.read_text() for name, path in shipped.shipped_spaces().items()}
    assert found == files
    assert {"unified", "demo"} <= set(found)


def test_the_wheels_own_copy_is_taken_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = tmp_path / "_spaces"
    packaged.mkdir()
    (packaged / "only.yaml").write_text("schema: 1\n")
    monkeypatch.setattr(shipped, "_CANDIDATES", (packaged, ROOT / "spaces"))
    assert shipped.shipped_spaces() == {"only": packaged / "only.yaml"}


def test_an_installation_without_spaces_is_said_to_be_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "_CANDIDATES", (tmp_path / "_spaces", tmp_path / "spaces"))
    with pytest.raises(MissingError, match="reinstall peftsearch"):
        shipped.shipped_spaces()
