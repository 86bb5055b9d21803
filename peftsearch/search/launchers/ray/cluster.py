"""Joining a Ray cluster to start workers on it, and leaving nothing of Ray's on the terminal."""

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
    """What of a node each worker takes: CPUs, and GPUs, of which it may be a part."""

    cpus: float
    gpus: float = 0.0

    def __str__(self) -> str:
        cpus = f"{self.cpus:g} CPU" + ("s" if self.cpus != 1 else "")
        return f"{cpus} and {self.gpus:g} GPU" if self.gpus else cpus


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address` (`auto`: $RAY_ADDRESS, or the one
    that runs on this machine); MissingError if that does not work.
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
            if terminated is not None:  # one that Python can put back
                signal.signal(signal.SIGTERM, terminated)  # Ray has put its own there


def _connect(ray: Any, address: str) -> None:
    try:
        _refuse_if_nobody_listens(
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


def _refuse_if_nobody_listens(address: str) -> None:
    """OSError if nobody listens at HOST:PORT: Ray itself would try it for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=_ANSWERS_S).close()


@contextlib.contextmanager
def _ray_stdout_hidden() -> Iterator[None]:
    """Ray writes to stdout what its nodes say before they die, pages of it; our results go there.
    It is in Ray's logs as well.
    """
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
