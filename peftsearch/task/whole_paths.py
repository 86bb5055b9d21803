"""The files of a task by their whole paths, so that a study or a recipe works from any folder."""

from __future__ import annotations

from pathlib import Path

from peftsearch.paths import absolute
from peftsearch.task.parallel import parallel_paths
from peftsearch.task.spec import TaskSpec

__all__ = ["FILES", "absolute_data", "with_whole_paths"]

FILES = ("train", "eval", "test")
"""Fields of a task that name files."""


def with_whole_paths(spec: TaskSpec) -> TaskSpec:
    """The task with every file and folder by its whole path; names of the Hub stay as they are."""
    files = {key: getattr(spec, key) for key in FILES}
    whole = {key: absolute_data(said) for key, said in files.items() if said is not None}
    if spec.name is not None:
        whole["name"] = _absolute_name(spec.name)
    return spec.model_copy(update=whole)


def absolute_data(path_text: str) -> str:
    """The whole path of a file or folder, or those of the two files of parallel text."""
    try:
        pair = parallel_paths(path_text)
    except (OSError, RuntimeError, ValueError):  # no path: reading it says what is wrong
        return path_text
    return absolute(path_text) if pair is None else ",".join(map(absolute, pair))


def _absolute_name(name: str) -> str:
    """`owner/dataset:config`; the `datasets` library takes it for a folder where there is one."""
    from peftsearch.task.known import known_dataset

    source, colon, config = name.partition(":")
    if name.startswith("demo:") or known_dataset(name) is not None:
        return name
    try:
        is_folder = bool(source.strip()) and Path(source).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):
        return name
    return f"{absolute(source)}{colon}{config}" if is_folder else name
