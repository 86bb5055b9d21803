"""Files that workers of several machines hand one another, in one of Optuna's artifact stores.

A store is a folder that all machines see (`/shared/peftsearch`), or a bucket of S3
(`s3://bucket/path`) or of Google Cloud Storage (`gs://bucket/path`), with the credentials that
boto3 and Google's client find.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore, GCSArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from peftsearch.atomic import write_atomic
from peftsearch.errors import MissingError, UsageError

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

__all__ = ["Artifacts", "open_artifacts"]


class Artifacts:
    """`prefix` begins every name: the path in a bucket, and the study's id."""

    def __init__(self, store: ArtifactStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def put(self, path: Path) -> str:
        """Store a file; the name it has there, which is new every time."""
        name = f"{self._prefix}{uuid.uuid4().hex}-{path.name}"
        with open(path, "rb") as file:
            self._store.write(name, file)
        return name

    def get(self, name: str, path: Path) -> bool:
        """Write a stored file to `path`, whole or not at all; False if it is not there."""
        try:
            with self._store.open_reader(name) as reader:
                write_atomic(path, reader.read())
        except ArtifactNotFound:
            return False
        return True

    def remove(self, name: str) -> None:
        """Nothing happens if it is not there."""
        try:
            self._store.remove(name)
        except ArtifactNotFound:
            return


def open_artifacts(address: str, study_id: str) -> Artifacts:
    """The store at an address; UsageError if it is not one, MissingError without its package."""
    parts = urlsplit(address)
    path = parts.path.strip("/")
    prefix = f"{path}/{study_id}-" if path else f"{study_id}-"
    try:
        if parts.scheme == "s3" and parts.netloc:
            return Artifacts(Boto3ArtifactStore(parts.netloc), prefix)
        if parts.scheme == "gs" and parts.netloc:
            return Artifacts(GCSArtifactStore(parts.netloc), prefix)
    except ImportError as error:
        package = {"s3": "boto3", "gs": "google-cloud-storage"}[parts.scheme]
        raise MissingError(f"{address}: pip install {package}") from error
    if parts.scheme not in ("", "file") or parts.netloc:
        raise UsageError(f"--artifacts {address}: write a folder, s3://bucket/path or gs://bucket")
    return _in_folder(Path(parts.path), study_id)


def _in_folder(folder: Path, study_id: str) -> Artifacts:
    if not folder.is_absolute():
        raise UsageError(f"--artifacts {folder}: all machines need one place; write its whole path")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingError(f"--artifacts {folder}: cannot be used ({error.strerror})") from error
    return Artifacts(FileSystemArtifactStore(folder), f"{study_id}-")
