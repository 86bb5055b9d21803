"""Optuna's journal in one file, on one local disk, that survives kills and full disks.

Optuna 5.0's own file backend does not: its journal cannot be loaded once a line was cut off and
another appended, and its link lock blocks for ever if its holder was killed. Here every append
first cuts what a killed writer left and undoes itself if it fails, and the lock is the kernel's, on
the journal itself. The lines are Optuna's: its own tools read them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from peftsearch.disk.atomic import append_whole, end_of_last_line
from peftsearch.disk.locks import lock_descriptor
from peftsearch.errors import MissingError, PeftsearchError, UsageError

__all__ = ["JournalFile", "open_journal"]

_READER_WAITS_S = 2.0
"""A writer holds the lock for milliseconds, unless it was suspended in that moment."""

_NUMBER = (float, int)
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("op_code", "study_id", "trial_id", "state", "step"), (int,)),
    **dict.fromkeys(("worker_id", "study_name", "param_name", "distribution"), (str,)),
    **dict.fromkeys(("datetime_start", "datetime_complete"), (str, type(None))),
    **dict.fromkeys(("user_attr", "system_attr", "user_attrs", "system_attrs"), (dict,)),
    **dict.fromkeys(("params", "distributions", "intermediate_values"), (dict,)),
    **dict.fromkeys(("param_value_internal", "intermediate_value"), _NUMBER),
    "directions": (list,),
    "value": (*_NUMBER, type(None)),
    "values": (list, type(None)),
}
"""Types of a log's values in JSON, by key."""


def open_journal(path: Path, *, create: bool = False) -> JournalStorage:
    """The journal at `path` as an Optuna storage; an empty file is an empty journal.

    Only reads: a damaged end is cut by the next append. UsageError if the file is missing (unless
    `create`) or cannot be read, PeftsearchError with file and line if it is damaged elsewhere.
    """
    if create:
        with _named(path, "created"):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
    journal = JournalFile(path)
    try:
        return JournalStorage(journal)
    except PeftsearchError:
        raise
    except Exception as error:  # Optuna replays what it reads without looking at it
        raise PeftsearchError(
            f"{path}: a line near the {journal.read_lines:,}th is not an Optuna log entry "
            f"({type(error).__name__}: {error}); finished trials are safe in trials/: restore the "
            "file from a copy"
        ) from error


class JournalFile(BaseJournalBackend):
    """One log (a JSON object with an `op_code`) a line; the log's number is the line's, from 0."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        # (number, offset in bytes) of the first log not read yet.
        self._cursor = (0, 0)

    @property
    def read_lines(self) -> int:
        """The number of lines read so far."""
        return self._cursor[0]

    @property
    def torn_path(self) -> Path:
        """The file that cut-off lines are moved to."""
        return self.path.with_suffix(".torn")

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append the logs, all on disk or none; MissingError if the file cannot be written."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        with self._opened(os.O_RDWR | os.O_APPEND, "written") as descriptor:
            lock_descriptor(descriptor, self.path, exclusive=True, timeout_s=None)
            self._cut_damaged_end(descriptor)
            append_whole(descriptor, b"".join(lines))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The logs from this number on, up to the last line that is complete now."""
        with self._opened(os.O_RDONLY, "read") as descriptor:
            end = self._committed(descriptor)
            is_ahead = self._cursor[0] > log_number_from
            number, offset = (0, 0) if is_ahead else self._cursor
            if offset > end:
                raise PeftsearchError(
                    f"{self.path}: was truncated while in use; stop every search of this "
                    "study, then start it again with --resume"
                )
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                file.seek(offset)
                yield from self._parse(file, number, offset, end, log_number_from)

    def _parse(
        self, lines: Iterable[bytes], number: int, offset: int, end: int, wanted: int
    ) -> Iterator[dict[str, Any]]:
        for line in lines:
            if offset + len(line) > end:
                return
            log = _log_or_none(line)
            if log is None:
                if offset + len(line) < end:
                    raise self._damaged(number + 1)
                return  # a damaged last line, which the next append cuts
            number, offset = number + 1, offset + len(line)
            self._cursor = (number, offset)
            if number > wanted:
                yield log

    def _committed(self, descriptor: int) -> int:
        """The offset after the last complete line that no failing writer will take back.

        A writer suspended in the middle of writing must not stop readers: after a while they go
        on without the lock.
        """
        lock_descriptor(descriptor, self.path, exclusive=False, timeout_s=_READER_WAITS_S)
        try:
            return end_of_last_line(descriptor, os.fstat(descriptor).st_size)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _cut_damaged_end(self, descriptor: int) -> None:
        """Move a last line without newline (a killed writer) or content (a power cut) away."""
        size = os.fstat(descriptor).st_size
        end = end_of_last_line(descriptor, size)
        start = end_of_last_line(descriptor, end - 1)
        if _log_or_none(os.pread(descriptor, end - start, start)) is None:
            end = start
        if end < size:
            self._keep(os.pread(descriptor, size - end, end))
            os.ftruncate(descriptor, end)

    def _keep(self, torn: bytes) -> None:
        with contextlib.suppress(OSError), open(self.torn_path, "ab") as kept:
            kept.write(torn.removesuffix(b"\n") + b"\n")

    def _damaged(self, line: int) -> PeftsearchError:
        return PeftsearchError(
            f"{self.path}:{line}: this line is damaged; finished trials are safe in trials/: "
            f"restore the file from a copy, or keep what came before with "
            f"`head -n {line - 1} {self.path.name} > kept && mv kept {self.path.name}`"
        )

    @contextlib.contextmanager
    def _opened(self, flags: int, action: str) -> Iterator[int]:
        with _named(self.path, action):
            descriptor = os.open(self.path, flags)
            try:
                yield descriptor
            finally:
                os.close(descriptor)


def _log_or_none(line: bytes) -> dict[str, Any] | None:
    try:
        log = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, or no UTF-8
        return None
    is_whole = isinstance(log, dict) and "op_code" in log
    return log if is_whole and all(_fits(key, value) for key, value in log.items()) else None


def _fits(key: str, value: Any) -> bool:
    """Whether a value has a type that Optuna writes; it replays logs without checking."""
    kinds = _KINDS.get(key)
    if kinds is None or type(value) in kinds:
        return not (key == "values" and value) or all(type(one) in _NUMBER for one in value)
    return False


@contextlib.contextmanager
def _named(path: Path, action: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(
            f"{path}: the study's journal is missing; finished trials are safe in trials/, "
            "but to continue, restore the journal from a copy, or start a new study"
        ) from error
    except OSError as error:
        raise MissingError(
            f"{path}: cannot be {action} ({error.strerror or error}); nothing in it was changed: "
            "free disk space or fix its permissions, then continue with --resume"
        ) from error
