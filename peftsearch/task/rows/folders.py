"""Folders written by `save_to_disk` of the `datasets` library: Arrow files, and splits of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftsearch.errors import DataError
from peftsearch.task.rows.arrow_classes import class_names_in_schema
from peftsearch.task.rows.nested import frame_of
from peftsearch.task.rows.rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_folder", "splits_in"]

_STATE = "state.json"
_SPLITS = "dataset_dict.json"
_WANTED = "give a file, or a folder written by save_to_disk"
_END = b"\xff\xff\xff\xff\0\0\0\0"
"""End-of-stream marker of Arrow (https://arrow.apache.org/docs/format/Columnar.html)."""
_SHOWN = 5
"""Names of a folder's content shown in messages."""


def splits_in(path_text: str) -> dict[str, str]:
    """Split → its folder, where a folder holds several; empty for any other path. Reads no rows."""
    folder = _folder(path_text)
    if folder is None or not (folder / _SPLITS).is_file():
        return {}
    names = _json(folder / _SPLITS, f"{path_text}/{_SPLITS}").get("splits")
    if not isinstance(names, list) or not all(isinstance(n, str) and _is_plain(n) for n in names):
        raise DataError(f"{path_text}/{_SPLITS}: not a list of splits")
    return {name: str(Path(path_text) / name) for name in names}


def read_folder(path_text: str) -> Rows:
    """The rows of one data set on disk; DataError, with the folder's content, if it is none."""
    folder = Path(path_text).expanduser()
    splits = splits_in(path_text)
    if splits:
        listed, first = ", ".join(splits), next(iter(splits.values()))
        raise DataError(f"{path_text}: a folder of splits ({listed}); give one, as {first}")
    if not (folder / _STATE).is_file():
        raise DataError(f"{path_text or '.'}: a folder that holds {_listed(folder)}; {_WANTED}")
    table = _table(folder, path_text)
    if table.num_rows == 0:
        raise DataError(f"{path_text}: the folder has no rows")
    return Rows(
        _name(folder), frame_of(path_text, table), classes=class_names_in_schema(table.schema)
    )


def _folder(path_text: str) -> Path | None:
    try:
        folder = Path(path_text).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, an unknown ~user, a NUL
        return None


def _table(folder: Path, path_text: str) -> pa.Table:
    import pyarrow as pa

    tables = []
    for path in _files(folder, path_text):
        shown = f"{path_text}/{path.name}"
        try:
            with pa.memory_map(str(path)) as source:
                tables.append(pa.ipc.open_stream(source).read_all())
            _refuse_cut_off(path, shown)
        except FileNotFoundError as error:
            raise DataError(f"{shown}: missing, though {_STATE} names it") from error
        except (pa.ArrowException, OSError, ValueError) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{shown}: not a readable Arrow file ({why})") from error
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise DataError(f"{path_text}: its Arrow files have different columns") from error


def _refuse_cut_off(path: Path, shown: str) -> None:
    """DataError for a truncated stream: cut between two batches, it would read as a shorter one."""
    with path.open("rb") as file:
        file.seek(-len(_END), os.SEEK_END)
        if file.read() != _END:
            raise DataError(f"{shown}: cut off: the end of its rows is missing")


def _files(folder: Path, path_text: str) -> list[Path]:
    shown = f"{path_text}/{_STATE}"
    state = _json(folder / _STATE, shown)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(f"{path_text}: rows chosen by an index, of an old version; save it again")
    files: Any = state.get("_data_files")
    if files == []:
        raise DataError(f"{path_text}: the folder has no rows")
    listed = files if isinstance(files, list) else [None]
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in listed]
    if not all(isinstance(name, str) and _is_plain(name) for name in names):
        raise DataError(f"{shown}: it names no Arrow files")
    return [folder / str(name) for name in names]


def _is_plain(name: str) -> bool:
    """True for the name of something in the folder itself, without path separators."""
    return bool(name) and name not in (".", "..") and Path(name).name == name


def _json(path: Path, shown: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{shown}: not readable as JSON") from error
    if not isinstance(found, dict):
        raise DataError(f"{shown}: an object was expected, not {type(found).__name__}")
    return found


def _name(folder: Path) -> str:
    """The folder's name in messages: of a split, with that of its parent."""
    folder = folder.absolute()
    is_split = (folder.parent / _SPLITS).is_file()
    return f"{folder.parent.name}/{folder.name}" if is_split else folder.name


def _listed(folder: Path) -> str:
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        return f"what cannot be listed ({error.strerror})"
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:24] for name in names[:_SHOWN]) + more if names else "nothing"
