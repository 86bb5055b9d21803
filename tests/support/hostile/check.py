"""Runs a case through the command-line entry and says what of the promises it broke."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from peftsearch.errors import PeftsearchError
from peftsearch.records.folder import StudyFolder, study_names
from support.hostile.case import Case

__all__ = ["LIMIT_S", "Ran", "broken_promises", "contents_of", "run_here"]

LIMIT_S = 20
"""Of the processor: the machine may be busy with other things."""
PATIENCE = 6
"""So many times as long may it take by the clock on the wall."""
CODES = (0, 1, 2, 3, 130)
"""docs/exit-codes.md."""
MOST_LINES, MOST_LINES_OF_SEARCH = 12, 40
MOST_CHARACTERS = 4000
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HALF = re.compile(r"\.tmp$|\.partial")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int | None
    out: str
    err: str
    crash: str = ""
    """A traceback, or what stood in the way of an end."""


class _TookTooLong(BaseException):
    pass


def run_here(case: Case, run: Callable[[list[str]], int], limit_s: int = LIMIT_S) -> Ran:
    """In this process, from the case's folder, all that is written to 1 and 2 caught."""

    def late(*_: object) -> None:
        raise _TookTooLong

    code, crash = None, ""
    before = {number: signal.signal(number, late) for number in (signal.SIGALRM, signal.SIGPROF)}
    with contextlib.chdir(case.folder), _caught(case.stdin) as files:
        signal.alarm(PATIENCE * limit_s)
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        try:
            code = run(case.arguments)
        except _TookTooLong:
            crash = f"still running after {limit_s} s{_where()}"
        except BaseException:
            crash = _where()
        finally:
            signal.alarm(0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
            sys.stdout.flush()
            sys.stderr.flush()
        out, err = (_read(file) for file in files)
    return Ran(code, out, err, crash)


def _where() -> str:
    """The traceback's own and last lines, and the error."""
    kind, error, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    shown = [f for f in frames[:-1] if "/peftsearch/" in f.filename][-4:] + frames[-1:]
    lines = [f"\n      {f.filename}:{f.lineno} {f.name}: {f.line}" for f in shown]
    return f"{''.join(lines)}\n      {kind and kind.__name__}: {str(error)[:500]}"


def _read(file: io.BufferedIOBase) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def _caught(stdin: str) -> Iterator[tuple[io.BufferedIOBase, io.BufferedIOBase]]:
    """Standard streams as in a pipe, also for what is not Python."""
    kept = sys.stdin, sys.stdout, sys.stderr
    copies = [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            for file, number in ((out, 1), (err, 2)):
                os.dup2(file.fileno(), number)
            sys.stdin = io.StringIO(stdin)
            sys.stdout = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), "utf-8")
            sys.stderr = io.TextIOWrapper(os.fdopen(os.dup(2), "wb"), "utf-8", "backslashreplace")
            yield out, err  # type: ignore[misc]
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.close()
            sys.stdin, sys.stdout, sys.stderr = kept
            for copy, number in zip(copies, (1, 2), strict=True):
                os.dup2(copy, number)
                os.close(copy)


def broken_promises(case: Case, ran: Ran, before: dict[str, bytes]) -> list[str]:
    """What is wrong with how it ended; `before` is `contents_of` the sandbox around its folder."""
    return [*_of_ending(case, ran), *_of_writing(case, ran), *_of_files(case, before)]


def _of_ending(case: Case, ran: Ran) -> Iterator[str]:
    if ran.crash or "Traceback (most recent call last)" in ran.err:
        yield f"traceback or hang: {(ran.crash or ran.err)[-3000:]}"
    elif ran.code not in CODES:
        yield f"exit code {ran.code}"
    elif case.refused and ran.code == 0:
        yield "accepted"


def _of_writing(case: Case, ran: Ran) -> Iterator[str]:
    for name, text in (("stdout", ran.out), ("stderr", ran.err)):
        found = CONTROL.search(text)
        if found:
            around = text[max(0, found.start() - 60) : found.end() + 20]
            yield f"{name} has a control character: {around!r}"
        try:
            text.encode()
        except UnicodeEncodeError:
            yield f"{name} is not UTF-8"
    if ran.crash:
        return
    lines = [line for line in ran.err.splitlines() if line.strip()]
    if "Warning:" in ran.err:
        yield f"a warning of Python's: {ran.err[-600:]}"
    if len(lines) > (MOST_LINES_OF_SEARCH if "search" in case.arguments else MOST_LINES):
        yield f"{len(lines)} lines on stderr: {ran.err[-1500:]}"
    if max(map(len, lines), default=0) > MOST_CHARACTERS:
        yield f"a line of {max(map(len, lines)):,} characters on stderr: {ran.err[:300]}"
    if ran.code and not ran.out:
        errors = [line for line in lines if line.startswith("error: ")]
        if len(errors) != 1 or len(errors[0]) < (18 if ran.code == 130 else 25):
            yield f"no one sentence: {ran.err[-800:]!r}"


def contents_of(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def _of_files(case: Case, before: dict[str, bytes]) -> Iterator[str]:
    """Nothing half-written, nothing outside of the folder, no input changed."""
    sandbox = case.folder.parent
    after = contents_of(sandbox)
    own = (case.folder, *_studies(case))
    for name in after.keys() - before.keys():
        if HALF.search(name):
            yield f"left behind: {name}"
        is_own = any((sandbox / name).is_relative_to(place) for place in own)
        if not is_own and not _told_where(case):
            yield f"written outside of its folder: {name}"
    for name, content in before.items():
        if name not in after:
            if not name.endswith("checkpoint.safetensors"):
                yield f"deleted: {name}"
        elif after[name] != content and not _may_change(name) and not _told_where(case):
            yield f"changed: {name}"
    yield from _of_studies(case, before)


def _told_where(case: Case) -> bool:
    """Whether the command line may name any place to write to."""
    return case.arguments[:1] in (["export"], ["train"], ["report"])


def _studies(case: Case) -> Iterator[Path]:
    """Folders that the command line names to keep studies in."""
    for word, after in itertools.pairwise([*case.arguments, ""]):
        option, equals, value = word.partition("=")
        if option == "--studies":
            yield Path(os.path.normpath(case.folder / (value if equals else after)))


def _may_change(name: str) -> bool:
    """What a search or a report of a study writes anew."""
    derived = ("trials.csv", "frontier.json", "report.html", "journal.log", "journal.torn")
    return name.endswith((*derived, ".lock", "log.txt", "curve.jsonl", "checkpoint.safetensors"))


def _of_studies(case: Case, before: dict[str, bytes]) -> Iterator[str]:
    """A new study is whole: it can be read, and every file of it is there."""
    studies = case.folder / "studies"
    known = {name.split("/")[2] for name in before if name.count("/") > 2}
    for name in set(study_names(studies)) - known:
        try:
            folder = StudyFolder.open(name, studies)
            folder.read()
        except PeftsearchError as error:
            yield f"study '{name}' is no whole one: {error}"
            continue
        parts = (folder.space_path, folder.environment_path, folder.journal_path)
        if not all(part.is_file() for part in parts):
            yield f"study '{name}' lacks a file"
    if studies.is_dir():
        for child in studies.iterdir():
            if child.name not in known and not (child / "study.json").is_file():
                yield f"no study: studies/{child.name}"
