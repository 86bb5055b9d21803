"""Opening a study to read it, updated from its database if it has one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from peftsearch.cli.terminal.console import print_note

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder

__all__ = ["open_folder", "studies_flag"]


def open_folder(study: str, studies: Path | None) -> StudyFolder:
    """A study's folder, brought up to date from its database if it has one."""
    from peftsearch.records.folder import StudyFolder
    from peftsearch.records.storage_name import is_database

    folder = StudyFolder.open(study, studies)
    if is_database(folder.read_info().storage):
        from peftsearch.study.storage.database.copies import update_folder  # with Optuna

        update_folder(folder, print_note)
    return folder


def studies_flag(folder: StudyFolder) -> str:
    """` --studies DIR` for a command that names a study, or nothing where that is the default."""
    from peftsearch.records.folder import studies_folder

    studies = folder.root.parent
    return "" if studies == studies_folder() else f" --studies {shlex.quote(str(studies))}"
