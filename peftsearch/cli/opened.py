"""The study that a command looks at, as far as everyone who searches it has come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peftsearch.cli.console import say

if TYPE_CHECKING:
    from peftsearch.search.folder import StudyFolder

__all__ = ["opened"]


def opened(study: str, studies: Path | None) -> StudyFolder:
    """A study's folder, brought up to date from its database if it has one."""
    from peftsearch.search.folder import StudyFolder
    from peftsearch.search.study_copy import bring_home

    folder = StudyFolder.open(study, studies)
    bring_home(folder, say)
    return folder
