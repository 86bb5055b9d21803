"""`peftsearch report`: the study as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from peftsearch.cli.open_study import open_folder
from peftsearch.cli.options import Json, StudiesFolder, StudyName
from peftsearch.cli.terminal.console import print_json, print_line
from peftsearch.errors import UsageError

__all__ = ["report"]


def report(
    study: StudyName,
    studies: StudiesFolder = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", metavar="FILE", help="Default: report.html in the study."),
    ] = None,
    plotly_from: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="URL", help="Load plotly.js from this URL instead of including it."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a self-contained HTML report: frontier, learning curves, all trials."""
    from peftsearch.records.derive import write_derived
    from peftsearch.report.html import write_report
    from peftsearch.study.read_study import read_study

    folder = open_folder(study, studies)
    if out is not None and out.is_dir():
        raise UsageError(f"--out {out}: is a folder; give the name of a file")
    record = read_study(folder)
    if out is None:  # told to write elsewhere, it leaves the study as it is
        write_derived(folder, record)
    path = out or folder.report_path
    write_report(record, path, folder.read_environment(), folder, plotly_from)
    if json:
        print_json("report", {"study": study, "report": str(path)})
    else:
        print_line(str(path))
