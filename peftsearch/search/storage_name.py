"""How a study's record names where Optuna keeps it; imports no Optuna."""

from __future__ import annotations

__all__ = ["JOURNAL", "VARIABLE", "is_database"]

JOURNAL = "journal.log"
VARIABLE = "PEFTSEARCH_STORAGE"
"""Of the environment: a database's address, with its password if it needs one."""


def is_database(storage: str) -> bool:
    """Whether a study's `storage` is a database and no journal."""
    return storage != JOURNAL
