"""Artifact stores: workers on several machines share checkpoints and adapters through them.

A store is one of Optuna's: a folder that all machines see (`/shared/peftsearch`), or a bucket of S3
(`s3://bucket/path`) or of Google Cloud Storage (`gs://bucket/path`), with the credentials that
boto3 and Google's client find.
"""

from __future__ import annotations

import errno
import time
import uuid
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore, GCSArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import ExperimentalWarning

from peftsearch.disk.atomic import write_atomic
from peftsearch.errors import MissingError, UsageError

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

__all__ = ["Artifacts", "open_artifacts"]

T = TypeVar("T")

_PAUSE_S = 2.0
_CLIENTS = {"boto3", "botocore", "google", "requests", "urllib3"}
"""Packages whose errors concern a bucket, the connection or the right to use it."""

_REFUSALS = {401, 403, 404}
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


class Artifacts:
    """Stores, reads and removes files of one study.

    `address` is the store's, as the user wrote it. `prefix` begins every name: the path in a
    bucket, and the study's id. Operations are retried through an outage of up to `limit_s` seconds,
    then raise MissingError.
    """

    def __init__(
        self, store: ArtifactStore, address: str, prefix: str, limit_s: float = 600.0
    ) -> None:
        self._store, self._address, self._prefix = store, address, prefix
        self._limit_s = limit_s

    def check_access(self) -> None:
        """Store, read and remove a small file; MissingError at once if that fails."""
        name = f"{self._prefix}{uuid.uuid4().hex}-trial-of-the-store"

        def store_read_remove() -> None:
            self._store.write(name, BytesIO(b"peftsearch"))
            with self._store.open_reader(name) as reader:
                reader.read()
            self._store.remove(name)

        self._through(store_read_remove, 0.0)

    def put(self, path: Path) -> str:
        """Store a file; returns its name there, which is new every time."""
        name = f"{self._prefix}{uuid.uuid4().hex}-{path.name}"

        def write() -> None:
            with path.open("rb") as file:
                self._store.write(name, file)

        self._through(write, self._limit_s)
        return name

    def get(self, name: str, path: Path) -> bool:
        """Write a stored file to `path`, whole or not at all; False if it is not there."""

        def read() -> bytes:
            with self._store.open_reader(name) as reader:
                return reader.read()

        try:
            content = self._through(read, self._limit_s)
        except ArtifactNotFound:
            return False
        write_atomic(path, content)
        return True

    def remove(self, name: str) -> None:
        """Remove a stored file, if it is there."""
        try:
            self._through(lambda: self._store.remove(name), self._limit_s)
        except ArtifactNotFound:
            return

    def _through(self, do: Callable[[], T], limit_s: float) -> T:
        began = time.monotonic()
        while True:
            try:
                return do()
            except ArtifactNotFound:
                raise
            except Exception as error:
                if not _is_the_stores(error):
                    raise
                if _is_final(error) or time.monotonic() - began >= limit_s:
                    raise _unusable(self._address, error) from error
            time.sleep(_PAUSE_S)


def _is_the_stores(error: Exception) -> bool:
    """Whether an error comes from the artifact store, not from our own code."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _CLIENTS


def _is_final(error: Exception) -> bool:
    """Whether retrying does not help: no room, no access, no bucket."""
    if type(error).__name__ == "NoCredentialsError":
        return True
    told = getattr(error, "response", None)  # boto3's is a dictionary
    found = told.get("ResponseMetadata", {}) if isinstance(told, dict) else {}
    status = found.get("HTTPStatusCode", getattr(error, "code", None))
    return status in _REFUSALS or (isinstance(error, OSError) and error.errno in _FINAL)


def _unusable(address: str, error: Exception) -> MissingError:
    sentence = (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
    return MissingError(
        f"--artifacts {address}: files cannot be stored there ({sentence}); finished trials are "
        "safe"
    )


def open_artifacts(address: str, study_id: str) -> Artifacts:
    """Open the store at an address; UsageError if it is not one, MissingError without its package
    or credentials.
    """
    parts = urlsplit(address)
    path = parts.path.strip("/")
    prefix = f"{path}/{study_id}-" if path else f"{study_id}-"
    try:
        if parts.scheme == "s3" and parts.netloc:
            return Artifacts(Boto3ArtifactStore(parts.netloc), address, prefix)
        if parts.scheme == "gs" and parts.netloc:
            return Artifacts(_google(parts.netloc), address, prefix)
    except ImportError as error:
        extra = {"s3": "s3", "gs": "gcs"}[parts.scheme]
        raise MissingError(f"{address}: pip install 'peftsearch[{extra}]'") from error
    except Exception as error:
        if not _is_the_stores(error):
            raise
        raise _unusable(address, error) from error
    if parts.scheme not in ("", "file") or parts.netloc:
        raise UsageError(f"--artifacts {address}: write a folder, s3://bucket/path or gs://bucket")
    return _in_folder(Path(parts.path), study_id)


def _google(bucket: str) -> ArtifactStore:
    class Store(GCSArtifactStore):
        """Optuna's `remove` raises Google's own error where a file is not there."""

        def remove(self, artifact_id: str) -> None:
            from google.api_core.exceptions import NotFound

            try:
                super().remove(artifact_id)
            except NotFound as error:
                raise ArtifactNotFound(artifact_id) from error

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return Store(bucket)


def _in_folder(folder: Path, study_id: str) -> Artifacts:
    if not folder.is_absolute():
        raise UsageError(
            f"--artifacts {folder}: all machines must find the same folder; give its absolute path"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingError(f"--artifacts {folder}: cannot be used ({error.strerror})") from error
    return Artifacts(FileSystemArtifactStore(folder), str(folder), f"{study_id}-")
