"""Files that workers hand one another, in a folder and in buckets."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from optuna.artifacts import FileSystemArtifactStore

from peftsearch.errors import MissingError, UsageError
from peftsearch.study.storage import artifacts as module
from peftsearch.study.storage.artifacts import Artifacts, open_artifacts
from support.buckets import gcs_server, s3_server

SERVERS = {"s3": s3_server, "gs": gcs_server}


@pytest.fixture(params=["folder", *(pytest.param(s, marks=pytest.mark.slow) for s in SERVERS)])
def address(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A folder, and a bucket behind each protocol."""
    if request.param == "folder":
        yield str(tmp_path / "shared")
        return
    with SERVERS[request.param]() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield f"{request.param}://bucket/path"


def test_what_is_put_is_got_until_it_is_removed(address: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"tensors")
    artifacts = open_artifacts(address, "study")
    artifacts.check_access()
    name = artifacts.put(tmp_path / "checkpoint")
    assert open_artifacts(address, "study").get(name, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"tensors"
    artifacts.remove(name)
    artifacts.remove(name)
    assert not artifacts.get(name, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_every_file_has_a_name_of_its_own_that_begins_with_the_study(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"tensors")
    artifacts = open_artifacts(f"file://{tmp_path}/shared", "study")
    artifacts.check_access()
    names = {artifacts.put(tmp_path / "checkpoint") for _ in range(3)}
    assert {path.name for path in (tmp_path / "shared").iterdir()} == names
    assert all(name.startswith("study-") for name in names)


@pytest.mark.parametrize("address", ["relative/folder", "ftp://host/folder", "s3://"])
def test_what_is_no_place_for_all_machines_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="--artifacts"):
        open_artifacts(address, "study")


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_that_is_not_there_is_said_at_once(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SERVERS[scheme]() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(MissingError, match=f"--artifacts {scheme}://other: files cannot be"):
            open_artifacts(f"{scheme}://other", "study").check_access()


@pytest.mark.parametrize(
    ("address", "package", "extra"),
    [("s3://bucket/path", "boto3", "s3"), ("gs://bucket", "google.cloud.storage", "gcs")],
)
def test_a_bucket_without_its_package_says_what_to_install(
    address: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(bucket: str) -> None:
        raise ImportError(package)

    monkeypatch.setattr(module, "Boto3ArtifactStore", missing)
    monkeypatch.setattr(module, "_google", missing)
    with pytest.raises(MissingError, match=rf"pip install 'peftsearch\[{extra}\]'"):
        open_artifacts(address, "study")


class Failing(FileSystemArtifactStore):
    """A store that raises the errors first, one a call."""

    def __init__(self, folder: Path, errors: list[Exception]) -> None:
        super().__init__(folder)
        self.errors = errors

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        content_body.read(3)
        if self.errors:
            raise self.errors.pop(0)
        content_body.seek(0)
        super().write(artifact_id, content_body)


def test_an_outage_is_waited_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    (tmp_path / "checkpoint").write_bytes(b"tensors")
    store = Failing(tmp_path, [ConnectionResetError("reset by peer") for _ in range(3)])
    artifacts = Artifacts(store, "a folder", "")
    assert artifacts.get(artifacts.put(tmp_path / "checkpoint"), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"tensors"
    assert store.errors == []


class Refused(Exception):
    """As boto3's clients raise them."""

    __module__ = "botocore.exceptions"

    def __init__(self, status: int) -> None:
        super().__init__(f"An error occurred ({status})")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_bucket_that_refuses_is_said_at_once(status: int, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"tensors")
    store = Failing(tmp_path, [Refused(status)])
    with pytest.raises(MissingError, match=rf"An error occurred \({status}\)"):
        Artifacts(store, "s3://bucket", "").put(tmp_path / "checkpoint")


def test_a_bucket_that_is_too_busy_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    (tmp_path / "checkpoint").write_bytes(b"tensors")
    store = Failing(tmp_path, [Refused(503), Refused(429)])
    assert Artifacts(store, "s3://bucket", "").put(tmp_path / "checkpoint")
    assert store.errors == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_full_or_read_only_store_is_said_at_once(number: int, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"tensors")
    store = Failing(tmp_path, [OSError(number, "no way")])
    with pytest.raises(MissingError, match=r"a folder: files cannot be stored there \(.*no way\)"):
        Artifacts(store, "a folder", "").put(tmp_path / "checkpoint")


def test_an_outage_without_end_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    (tmp_path / "checkpoint").write_bytes(b"tensors")
    store = Failing(tmp_path, [OSError("down") for _ in range(10**5)])
    with pytest.raises(MissingError, match="finished trials are safe"):
        Artifacts(store, "a folder", "", limit_s=0.01).put(tmp_path / "checkpoint")
