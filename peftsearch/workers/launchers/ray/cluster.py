"""Connecting to a Ray cluster, with Ray's own output kept off the terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from peftsearch.errors import MissingError, UsageError

__all__ = ["Share", "connected"]


_ANSWERS_S = 10.0


@dataclass(frozen=True)
class Share:
    """Resources that each worker takes of a node; `gpus` may be a fraction of one."""

    cpus: float
    gpus: float = 0.0

    def __str__(self) -> str:
        cpus = f"{self.cpus:g} CPU" + ("s" if self.cpus != 1 else "")
        return f"{cpus} and {self.gpus:g} GPU" if self.gpus else cpus


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Context with the module `ray`, connected to the cluster at `address` (`auto`: $RAY_ADDRESS,
    or the one that runs on this machine). Raises UsageError for an address of Ray's client, and
    MissingError if Ray is not installed or no cluster answers.
    """
    if "://" in address:
        raise UsageError(
            f"--address {address}: workers are started from a node of the cluster; run this there, "
            "or send it with: ray job submit -- peftsearch launch ray …"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingError("Ray is not installed; pip install 'peftsearch[ray]'") from None
    terminated = signal.getsignal(signal.SIGTERM)
    with _ray_stdout_hidden():
        try:
            _connect(ray, address)
            yield ray
        finally:
            ray.shutdown()
            # Ray installs a handler of its own. None: the former one was not set by Python.
            if terminated is not None:
                signal.signal(signal.SIGTERM, terminated)


def _connect(ray: Any, address: str) -> None:
    try:
        _refuse_if_unreachable(
            os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
        )
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        sentence = said.strip().split("\n")[0].split(". ")[0].rstrip(".")
        raise MissingError(
            f"no Ray cluster at '{address}' ({sentence}); start one with: ray start --head, or "
            "name one with --address"
        ) from None


def _refuse_if_unreachable(address: str) -> None:
    """Raise OSError if HOST:PORT does not accept connections: Ray would retry for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=_ANSWERS_S).close()


@contextlib.contextmanager
def _ray_stdout_hidden() -> Iterator[None]:
    """Discard stdout: Ray prints pages of its dying nodes' output there, where our results go. All
    of it is in Ray's logs as well.
    """
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
