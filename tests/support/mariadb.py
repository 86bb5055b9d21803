"""A real MariaDB server for tests, where its programs are installed (Debian: `mariadb-server`).

It speaks MySQL's protocol, listens on 127.0.0.1 and wants a password.
"""

from __future__ import annotations

import contextlib
import getpass
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from support.servers import PASSWORD, USER, DatabaseServer

__all__ = ["MariadbServer", "has_mariadb", "mariadb_server"]


def has_mariadb() -> bool:
    return _program("mariadbd") is not None


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


class MariadbServer(DatabaseServer):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._databases = 0

    def initialise(self) -> None:
        self._run(
            *(str(_program("mariadb-install-db")), "--no-defaults", *self._options()),
            "--auth-root-authentication-method=normal",
        )

    def _options(self) -> list[str]:
        return [
            *(f"--datadir={self.root / 'data'}", f"--socket={self.root / 'socket'}"),
            *(f"--user={getpass.getuser()}", f"--port={self.port}", "--bind-address=127.0.0.1"),
            # To the system at every commit, to the disk at times: a killed server loses nothing.
            *("--innodb-flush-log-at-trx-commit=2", "--max-connections=300"),
        ]

    def _command(self) -> list[str]:
        return [str(_program("mariadbd")), "--no-defaults", *self._options()]

    def _answers(self) -> bool:
        """Asked without its client, which leaves a socket open where nobody answers."""
        address = str(self.root / "socket")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(address)
            return probe.recv(1) != b""
        return False

    def _connect(self) -> Any:
        import pymysql

        return pymysql.connect(unix_socket=str(self.root / "socket"), user="root")

    def new_database(self) -> str:
        """The address, with the password, of a new empty database. Its collation is not that of
        connections: they may not be mixed.
        """
        self._databases += 1
        name = f"db{self._databases}"
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} COLLATE utf8mb4_unicode_ci")
            cursor.execute(f"CREATE USER IF NOT EXISTS {USER}@localhost IDENTIFIED BY '{PASSWORD}'")
            cursor.execute(f"GRANT ALL ON {name}.* TO {USER}@localhost")
        secret = quote(PASSWORD, safe="")
        return f"mysql+pymysql://{USER}:{secret}@127.0.0.1:{self.port}/{name}"


@contextlib.contextmanager
def mariadb_server() -> Iterator[MariadbServer]:
    """Running, with files of its own that are gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="peftsearch-mariadb-") as folder,
        MariadbServer(Path(folder)).running() as server,
    ):
        yield server
