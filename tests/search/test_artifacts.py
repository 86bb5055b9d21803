"""Files that workers hand one another."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from peftsearch.errors import MissingError, UsageError
from peftsearch.search.artifacts import open_artifacts


def test_what_is_put_is_got_until_it_is_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"tensors")
    artifacts = open_artifacts(str(tmp_path / "shared"), "study")
    name = artifacts.put(tmp_path / "checkpoint")
    assert artifacts.get(name, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"tensors"
    artifacts.remove(name)
    artifacts.remove(name)
    assert not artifacts.get(name, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_every_file_has_a_name_of_its_own_that_begins_with_the_study(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"tensors")
    artifacts = open_artifacts(f"file://{tmp_path}/shared", "study")
    names = {artifacts.put(tmp_path / "checkpoint") for _ in range(3)}
    assert {path.name for path in (tmp_path / "shared").iterdir()} == names
    assert all(name.startswith("study-") for name in names)


@pytest.mark.parametrize("address", ["relative/folder", "ftp://host/folder", "s3://"])
def test_what_is_no_place_for_all_machines_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="--artifacts"):
        open_artifacts(address, "study")


@pytest.mark.skipif(importlib.util.find_spec("boto3") is not None, reason="boto3 is installed")
def test_a_bucket_without_its_package_says_what_to_install() -> None:
    with pytest.raises(MissingError, match="pip install boto3"):
        open_artifacts("s3://bucket/path", "study")
