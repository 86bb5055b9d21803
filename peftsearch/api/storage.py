"""Setting the database address for this process and its workers; it is never written to disk."""

from __future__ import annotations

import os

from peftsearch.errors import UsageError

__all__ = ["apply_storage", "use_storage"]


def use_storage(address: str) -> str:
    """Set the database's address for this process and its workers; return it without password."""
    from peftsearch.records.storage_name import VARIABLE
    from peftsearch.study.storage.database.address import StorageAddress

    parsed = StorageAddress.parse(address)
    os.environ[VARIABLE] = address
    return parsed.redacted


def apply_storage(name: str, storage: str, address: str | None) -> None:
    """Use the address that the user gave for a study whose record names its `storage`.
    UsageError if the study has a journal, unless the address only came from $PEFTSEARCH_STORAGE.
    """
    from peftsearch.records.storage_name import VARIABLE, is_database

    if address is None:
        return
    if is_database(storage):
        use_storage(address)
    elif address != os.environ.get(VARIABLE):
        raise UsageError(
            f"study '{name}' was created without --storage and keeps its journal in its folder; "
            "leave --storage out, or start a new study with it"
        )
