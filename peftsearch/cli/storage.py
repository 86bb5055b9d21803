"""A database's address on the command line, which may hold a password."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

__all__ = ["use_storage", "without_storage"]


def use_storage(said: str) -> str:
    """Let this process and its workers reach a database; its address without the password."""
    from peftsearch.search.storage import VARIABLE, StorageAddress

    address = StorageAddress.parse(said)
    os.environ[VARIABLE] = said
    return address.shown


def without_storage(arguments: Sequence[str]) -> list[str]:
    """A command line to be quoted, with the database's address as it may be shown."""
    return list(_shown(iter(arguments)))


def _shown(arguments: Iterator[str]) -> Iterator[str]:
    from peftsearch.search.storage import StorageAddress

    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag != "--storage":
            yield argument
        elif value:
            yield f"{flag}={StorageAddress.parse(value).shown}"
        else:
            yield flag
            yield from (StorageAddress.parse(text).shown for text in [next(arguments, "")] if text)
