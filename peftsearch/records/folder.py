"""The folder of a study: every record of a search, in plain files that can be copied and moved.

studies/NAME/
  study.json, space.yaml, env.json   fixed when the study is created
  journal.log                        Optuna's log
  trials/00028/                      see `TrialFolder`
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftsearch.disk.atomic import write_atomic
from peftsearch.disk.atomic_folder import atomic_folder
from peftsearch.disk.json_records import json_text, read_json, read_record
from peftsearch.disk.locks import FileLock
from peftsearch.errors import MissingError, UsageError, did_you_mean
from peftsearch.paths import absolute
from peftsearch.records.records import StudyInfo, StudyRecord, TrialResult
from peftsearch.records.storage_name import JOURNAL
from peftsearch.records.trial_folder import TrialFolder

__all__ = ["StudyFolder", "TrialFolder", "check_study_name", "studies_folder", "study_names"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Device names of Windows: a study must be portable to it."""


def studies_folder(studies: Path | None = None) -> Path:
    """The absolute path of the folder of studies: `./studies` unless another is given."""
    return Path(absolute(str(studies or "studies")))


def check_study_name(name: str) -> str:
    """Return the name; UsageError if it is not a valid study name."""
    if not _NAME.fullmatch(name) or name.endswith(".") or _RESERVED.fullmatch(name):
        raise UsageError(
            f"study name {name!r} cannot be used: it must be a letter or digit, then up to 99 "
            "letters, digits, '.', '_' or '-', no '.' at the end, and not a device name like 'con'"
        )
    return name


def study_names(studies: Path | None = None) -> list[str]:
    """Names of the studies in a folder, sorted."""
    found = studies_folder(studies).glob("*/study.json")
    return sorted(p.parent.name for p in found if _NAME.fullmatch(p.parent.name) and p.is_file())


@dataclass(frozen=True)
class StudyFolder:
    """A study's folder on disk. `root` is absolute, independent of the working folder."""

    root: Path
    _read: dict[int, tuple[_Stamp, TrialResult]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Cached results by trial number: a worker reads the study before every trial."""

    @classmethod
    def at(cls, root: str | Path) -> StudyFolder:
        """The folder at a path, which is not checked."""
        return cls(Path(root).absolute())

    @classmethod
    def open(cls, name: str, studies: Path | None = None) -> StudyFolder:
        """An existing study by name; UsageError with the nearest name if there is none."""
        folder = cls(studies_folder(studies) / check_study_name(name))
        if not folder.study_path.is_file():
            nearest = did_you_mean(name, study_names(studies))
            raise UsageError(f"no study '{name}' in {folder.root.parent}{nearest}")
        return folder

    @classmethod
    def new(cls, name: str, studies: Path | None, resume_command: str) -> StudyFolder:
        """The folder for a new study; UsageError if its name is invalid or in use.

        Writes nothing. `resume_command` is quoted in the error that the study already exists.
        """
        folder = cls(studies_folder(studies) / check_study_name(name))
        if folder.study_path.is_file():
            raise UsageError(f"study '{name}' already exists; continue with: {resume_command}")
        if os.path.lexists(folder.root):
            raise UsageError(
                f"{folder.root} exists and is not a study; choose another name, or move it away"
            )
        return folder

    @classmethod
    def create(
        cls,
        info: StudyInfo,
        space_text: str,
        environment: Mapping[str, Any],
        studies: Path | None,
        resume_command: str,
    ) -> StudyFolder:
        """Write a new study with an empty journal, atomically: if killed, there is no study."""
        folder = cls.new(info.name, studies, resume_command)
        with _named(folder.root), atomic_folder(folder.root) as place:
            partial = cls(place)
            write_atomic(partial.space_path, space_text)
            write_atomic(partial.environment_path, json_text(dict(environment)))
            write_atomic(partial.journal_path, b"")
            partial.trials_path.mkdir()
            write_atomic(partial.study_path, json_text(info))
        return folder

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def study_path(self) -> Path:
        return self.root / "study.json"

    @property
    def space_path(self) -> Path:
        return self.root / "space.yaml"

    @property
    def environment_path(self) -> Path:
        return self.root / "env.json"

    @property
    def journal_path(self) -> Path:
        return self.root / JOURNAL

    @property
    def trials_path(self) -> Path:
        return self.root / "trials"

    @property
    def trials_csv_path(self) -> Path:
        """Derived, like `frontier_path` and `report_path`: can be rebuilt at any time."""
        return self.root / "trials.csv"

    @property
    def frontier_path(self) -> Path:
        return self.root / "frontier.json"

    @property
    def workers_path(self) -> Path:
        """The folder with a locked file for each live worker of this machine."""
        return self.root / "workers"

    @property
    def report_path(self) -> Path:
        return self.root / "report.html"

    def search_lock(self) -> FileLock:
        """The lock that one search of the study holds; its workers are its child processes."""
        return FileLock(self.root / "search.lock", f"study '{self.name}' is being searched")

    def trial(self, number: int) -> TrialFolder:
        return TrialFolder(self.trials_path / f"{number:05d}", number)

    def read_info(self) -> StudyInfo:
        """Read study.json; UsageError if it is missing or damaged."""
        info = read_record(self.study_path, StudyInfo, "restore it from a copy")
        if info is None:
            raise UsageError(f"{self.root} is not a study: it has no study.json")
        check_study_name(info.name)  # it appears in commands that users copy
        return info

    def read_environment(self) -> dict[str, Any]:
        return read_json(self.environment_path, "restore it from a copy") or {}

    def read(self) -> StudyRecord:
        """Read the study and every finished trial; unchanged results come from the cache."""
        results, running = [], 0
        for number in self._numbers():
            result = self._result(number)
            if result is None:
                running += 1
            else:
                results.append(result)
        return StudyRecord(info=self.read_info(), results=tuple(results), running=running)

    def finished(self) -> list[int]:
        """Numbers of the trials that have a result."""
        return [n for n in self._numbers() if self.trial(n).result_path.is_file()]

    def unfinished(self) -> list[int]:
        """Numbers of the trials that have begun and have no result."""
        return [n for n in self._numbers() if not self.trial(n).result_path.is_file()]

    def _numbers(self) -> list[int]:
        try:
            names = set(os.listdir(self.trials_path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        numbers = {int(name) for name in names if name.isascii() and name.isdigit()}
        return sorted(number for number in numbers if f"{number:05d}" in names)

    def _result(self, number: int) -> TrialResult | None:
        trial = self.trial(number)
        stamp = _stamp(trial.result_path)
        known = self._read.get(number)
        if stamp is None or (known is not None and known[0] == stamp):
            return None if stamp is None or known is None else known[1]
        result = trial.read_result()
        if result is not None:
            self._read[number] = (stamp, result)
        return result


@contextlib.contextmanager
def _named(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if os.path.lexists(root):
            raise UsageError(f"{root} was just created by another process") from error
        raise MissingError(
            f"{root}: the study cannot be created ({error.strerror}); nothing was written"
        ) from error


_Stamp = tuple[int, int, int]
"""Inode, bytes, ns: a file that was replaced differs in the first or the last."""


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
