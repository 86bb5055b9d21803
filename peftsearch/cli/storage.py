"""A database's address on the command line, which may hold a password."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from peftsearch.errors import UsageError

__all__ = ["hear_storage", "use_storage", "without_storage"]


def use_storage(said: str) -> str:
    """Set the database's address for this process and its workers; return it without password."""
    from peftsearch.records.storage_name import VARIABLE
    from peftsearch.study.storage.database.address import StorageAddress

    address = StorageAddress.parse(said)
    os.environ[VARIABLE] = said
    return address.shown


def hear_storage(name: str, storage: str, said: str | None) -> None:
    """Use the address given on the command line for a study whose record names its `storage`.
    UsageError if the study has a journal, unless the address only came from $PEFTSEARCH_STORAGE.
    """
    from peftsearch.records.storage_name import VARIABLE, is_database

    if said is None:
        return
    if is_database(storage):
        use_storage(said)
    elif said != os.environ.get(VARIABLE):
        raise UsageError(
            f"study '{name}' was begun with no --storage: it keeps a journal in its folder; leave "
            "--storage out, or begin a new study with it"
        )


def without_storage(arguments: Sequence[str]) -> list[str]:
    """A command line to be quoted, without the password in `--storage`."""
    return list(_shown(iter(arguments)))


def _shown(arguments: Iterator[str]) -> Iterator[str]:
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag != "--storage":
            yield argument
        elif value:
            yield f"{flag}={_without_password(value)}"
        else:
            yield flag
            yield from map(_without_password, filter(None, [next(arguments, "")]))


def _without_password(address: str) -> str:
    from peftsearch.study.storage.database.address import StorageAddress

    return StorageAddress.parse(address).shown
