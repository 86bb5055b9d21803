"""Database servers of the tests: each on files of its own, started, killed, restarted."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Self

__all__ = ["PASSWORD", "USER", "DatabaseServer"]

PASSWORD = "se:cr/et@ 7%word"
USER = "owner"


class DatabaseServer(ABC):
    """A server on files in `root`, on 127.0.0.1; `kill` and `start` as often as a test likes."""

    user: str | None = None
    """As whom it runs, if not as who runs the tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def initialise(self) -> None:
        """Make its files."""

    @abstractmethod
    def new_database(self) -> str:
        """The address, with the password, of a new empty database."""

    @abstractmethod
    def _command(self) -> list[str]:
        """What starts it."""

    @abstractmethod
    def _answers(self) -> bool: ...

    def start(self) -> None:
        """Returns when it answers; what a killed server left is waited for."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                self._process = self._begin()
            if self._answers():
                return
            time.sleep(0.1)
        raise TimeoutError((self.root / "log").read_text())

    def _begin(self) -> subprocess.Popen[bytes]:
        with open(self.root / "log", "ab") as log:
            return subprocess.Popen(
                self._command(), stdout=log, stderr=log, user=self.user, cwd=self.root
            )

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """On new files, until the end of the block."""
        self.initialise()
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def kill(self) -> None:
        """As a power cut would, for all that a client can see."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()  # nothing is kept

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, user=self.user, cwd=self.root
        )
        assert done.returncode == 0, done.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
