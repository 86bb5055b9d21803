"""Checks of a task before the rows of its data are read."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

from peftsearch.errors import DataError, UsageError, did_you_mean
from peftsearch.task.kinds.multilabel import Multilabel
from peftsearch.task.kinds.table import KINDS, kind_named
from peftsearch.task.metrics.table import METRICS
from peftsearch.task.prompts import requested_template
from peftsearch.task.rows.files import SEPARATORS, nearest_file
from peftsearch.task.rows.parallel import parallel_paths
from peftsearch.task.spec import TaskSpec

__all__ = [
    *("refuse_contradictions", "refuse_early", "refuse_missing_files", "refuse_other_metric"),
]

_LARGE = 8_000_000
"""Bytes from which a table's header is checked before its rows, which take a second to read."""


def refuse_early(spec: TaskSpec) -> None:
    """UsageError for an unknown kind or a metric that does not fit; DataError for missing files,
    and for columns that the header of a large table lacks.
    """
    refuse_contradictions(spec)
    if spec.kind is not None:
        kind_named(spec.kind)
    if spec.metric is not None:
        refuse_other_metric(spec)
    refuse_missing_files(spec.train, spec.eval, spec.test)
    for path_text in (spec.train, spec.eval):
        if path_text is not None:
            _refuse_unnamed_columns(spec, Path(path_text).expanduser())


def refuse_contradictions(spec: TaskSpec) -> None:
    """UsageError for several label columns with a kind that predicts one, and for --positive
    without --metric f1.
    """
    if spec.labels and spec.kind not in (None, Multilabel.name):
        raise UsageError(
            f"--label is given {len(spec.labels)} times, for columns of 0 and 1, and --kind "
            f"{spec.kind} predicts one column: give one, or --kind {Multilabel.name}"
        )
    if spec.positive is not None and spec.metric != "f1":
        metric = f"--metric {spec.metric}" if spec.metric else "no --metric"
        raise UsageError(
            f"--positive names the label of the metric f1, and {metric} is given: give "
            "--metric f1, too, or leave it out"
        )


def refuse_other_metric(spec: TaskSpec) -> None:
    """UsageError for a metric that is unknown, or does not fit the kind."""
    kinds = KINDS.values() if spec.kind is None else [kind_named(spec.kind)]
    known = {name for kind in kinds for name in kind.metrics}
    if spec.metric in known:
        return
    if spec.metric in METRICS:
        raise UsageError(
            f"metric '{spec.metric}' does not fit {spec.kind}"
            f"{did_you_mean(str(spec.metric), known)}"
        )
    raise UsageError(f"metric '{spec.metric}' unknown{did_you_mean(str(spec.metric), known)}")


def refuse_missing_files(*paths: str | None) -> None:
    """DataError for a missing file or folder, also one of two files of parallel text."""
    for path_text in paths:
        pair = parallel_paths(path_text or "")
        for one in pair or (path_text,):
            if one is not None and not _is_there(one):
                path = Path(one)
                what = "no such file" if path.suffix else "no such file or folder"
                hint = nearest_file(path) or (" (a comma joins the names of two)" if pair else "")
                raise DataError(f"{one}: {what}{hint}")


def _is_there(path_text: str) -> bool:
    try:
        return not path_text or Path(path_text).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # reading it says what is wrong
        return True


def _refuse_unnamed_columns(spec: TaskSpec, path: Path) -> None:
    names = _header(spec, path)
    if names is None:
        return
    for wanted in (*spec.text, *([spec.label] if spec.label else []), *spec.labels):
        if wanted not in names:
            raise DataError(f"{path.name}: no column '{wanted}'{did_you_mean(wanted, names)}")
    requested_template(spec, names, spec.label)


def _header(spec: TaskSpec, path: Path) -> list[str] | None:
    """The columns of a large csv or tsv file; None for others, and where they are not certain."""
    separator = SEPARATORS.get(path.suffix.lower())
    if separator is None or spec.separator is not None or not spec.header or not path.is_file():
        return None
    if path.stat().st_size < _LARGE:
        return None
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            names = next(csv.reader(file, delimiter=separator, quoting=quoting), [])
    except (OSError, csv.Error):
        return None
    named = [name.strip() for name in names]
    return named if len(named) > 1 and len(set(named)) == len(named) else None
