"""Values of `storage` in study.json: the journal's file name, or a database address."""

from __future__ import annotations

__all__ = ["JOURNAL", "VARIABLE", "is_database"]

JOURNAL = "journal.log"
VARIABLE = "PEFTSEARCH_STORAGE"
"""Environment variable with the database's address, including a password if it needs one."""


def is_database(storage: str) -> bool:
    """True if a study's `storage` is a database, not a journal."""
    return storage != JOURNAL
