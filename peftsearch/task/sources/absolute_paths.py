"""Absolute paths for the files of a task, so that studies and recipes work from any folder."""

from __future__ import annotations

from pathlib import Path

from peftsearch.paths import absolute
from peftsearch.task.rows.parallel import parallel_paths
from peftsearch.task.spec import TaskSpec

__all__ = ["FILES", "absolute_data", "is_there", "with_absolute_paths"]

FILES = ("train", "eval", "test")
"""Fields of a task that name files."""


def with_absolute_paths(spec: TaskSpec) -> TaskSpec:
    """The task with absolute paths for files and folders that exist; names on the Hub and missing
    files stay as they are.
    """
    files = {key: getattr(spec, key) for key in FILES}
    whole = {key: absolute_data(said) for key, said in files.items() if is_there(said)}
    if spec.name is not None:
        whole["name"] = _absolute_name(spec.name)
    return spec.model_copy(update=whole)


def is_there(path_text: str | None) -> bool:
    """True if the file or folder exists, or both files of parallel text do."""
    try:
        parts = parallel_paths(path_text or "") or (path_text or "",)
        return all(bool(one) and Path(one).expanduser().exists() for one in parts)
    except (OSError, RuntimeError, ValueError):  # no path
        return False


def absolute_data(path_text: str) -> str:
    """The absolute path of a file or folder, or those of the two files of parallel text."""
    try:
        pair = parallel_paths(path_text)
    except (OSError, RuntimeError, ValueError):  # no path: reading it says what is wrong
        return path_text
    return absolute(path_text) if pair is None else ",".join(map(absolute, pair))


def _absolute_name(name: str) -> str:
    """The name, or an absolute path where `datasets` would take it for a local folder."""
    from peftsearch.task.sources.known import known_dataset

    source, colon, config = name.partition(":")
    if name.startswith("demo:") or known_dataset(name) is not None:
        return name
    try:
        is_folder = bool(source.strip()) and Path(source).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):
        return name
    return f"{absolute(source)}{colon}{config}" if is_folder else name
