"""`peftsearch` as a command in a process group of its own, which can be killed whole or in part.

What is real: the command line from its first word on, its process group, its parent and worker
processes with their pipes, locks and signals, every file, `kill -9`. What is not: the processes are
forks of one that has imported everything, where a shell would start Python anew (4 s of imports
each); for that `workers/launchers/local.py` is given multiprocessing's "fork", not "spawn". With
`anew` nothing is replaced: `python -m peftsearch`, whose workers are spawned.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftsearch.cli.main import run
from peftsearch.workers.launchers import local as launch

__all__ = ["Killable", "imported", "in_a_fork", "started"]


_IMPORTED = (
    *("plotly.graph_objs", "pyarrow.fs", "pyarrow.parquet"),
    *("peftsearch.api.create", "peftsearch.api.progress.display", "peftsearch.cli.searching"),
    *("peftsearch.report.html", "peftsearch.study.create", "peftsearch.workers.run"),
    "peftsearch.workers.worker",
)


def imported() -> None:
    """Import what commands import when they run: the forks need not."""
    for name in _IMPORTED:
        importlib.import_module(name)


def in_a_fork(body: Callable[[], int]) -> int:
    """The process id of a fork that exits with what `body` returns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process:
        return process
    try:
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(1)  # those of the parent are not forked, and would be waited for
        code = body()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    finally:
        os._exit(70)


def started(words: list[str], home: Path, anew: bool = False) -> Killable:
    """`peftsearch WORDS` in `home`, with out.txt and errors.txt in place of a terminal."""

    def body() -> int:
        os.setsid()
        os.chdir(home)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for descriptor, name in ((1, "out.txt"), (2, "errors.txt")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        if anew:
            os.execv(sys.executable, [sys.executable, "-m", "peftsearch", *words])
        sys.stdout, sys.stderr = (os.fdopen(d, "w", closefd=False) for d in (1, 2))
        sys.argv = ["peftsearch", *words]
        warnings.simplefilter("ignore")
        forked: Any = launch
        forked.WorkerContext = lambda: multiprocessing.get_context("fork")
        return run(words)

    return Killable(in_a_fork(body), home)


@dataclass
class Killable:
    """A running command: `leader` is the process that was started, and the name of its group."""

    leader: int
    home: Path
    exit_code: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether its first process runs."""
        if self.exit_code is None:
            done, status = os.waitpid(self.leader, os.WNOHANG)
            if done:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code is None

    @property
    def errors(self) -> str:
        path = self.home / "errors.txt"
        return path.read_text() if path.exists() else ""

    def members(self) -> set[int]:
        """Every living process of its group."""
        return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._has(pid)}

    def workers(self) -> set[int]:
        """Those that search: neither the first one nor what multiprocessing keeps beside them."""
        return {pid for pid in self.members() - {self.leader} if not _counts_semaphores(pid)}

    def wait(self, limit_s: float) -> int | None:
        """The exit code of its first process; None if it still runs after so long."""
        deadline = time.monotonic() + limit_s
        while self.is_running and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.exit_code

    def wait_for_all(self, limit_s: float) -> bool:
        """Whether every process of the group has ended within so long."""
        deadline = time.monotonic() + limit_s
        while self.is_running or self.members():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def kill(self) -> None:
        """Every process at once."""
        if self.is_running or self.members():
            os.killpg(self.leader, signal.SIGKILL)
        self.wait_for_all(10)

    def _has(self, pid: int) -> bool:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return fields[0] not in "ZX" and int(fields[2]) == self.leader


def _counts_semaphores(pid: int) -> bool:
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
