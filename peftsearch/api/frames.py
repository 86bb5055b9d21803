"""Data frames and `datasets` given in memory: written to files that a study can reopen.

A file's name holds the hash of its content, so that the same data are one file, and a study is
resumed with the same frame or with none.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftsearch.disk.atomic import write_atomic
from peftsearch.errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FOLDER", "data_path"]

FOLDER = ".data"
"""Beside the studies; no study's name begins with a dot."""


def data_path(data: Any, option: str, studies: Path | None) -> Any:
    """The path of data given in memory, written to `STUDIES/.data/`; anything else as it is.

    UsageError for data that cannot be written as one split, DataError for a frame without rows or
    with values that no file has.
    """
    kind = _kind(data)
    if kind is None:
        return data
    if kind != "split":
        raise UsageError(f"--{option} takes one split, not {kind}: pass data['train'], for example")
    content = _parquet(data, option)
    from peftsearch.records.folder import studies_folder

    folder = studies_folder(studies) / FOLDER
    name = hashlib.sha256(content).hexdigest()[:16]
    path = folder / f"frame-{name}.parquet"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    return str(path)


def _kind(data: Any) -> str | None:
    """`split` for a frame or a data set with rows, a description of unsupported data (several
    splits, a stream), None for anything else. Types are compared by name, without importing the
    libraries.
    """
    for base in type(data).__mro__:
        module = base.__module__.partition(".")[0]
        if (module, base.__name__) in (("pandas", "DataFrame"), ("datasets", "Dataset")):
            return "split"
        if module == "datasets" and base.__name__ in ("DatasetDict", "IterableDatasetDict"):
            return "a dictionary of splits"
        if module == "datasets" and base.__name__ == "IterableDataset":
            return "a stream of rows"
    return None


def _parquet(data: Any, option: str) -> bytes:
    """The rows as a parquet file; of a `datasets.Dataset` with the names of its classes."""
    if len(data) == 0:
        raise DataError(f"--{option}: the data have no rows")
    written = io.BytesIO()
    try:
        if hasattr(data, "to_pandas"):
            data.to_parquet(written)
        else:
            _named(data, option).to_parquet(written, index=False)
    except DataError:
        raise
    except Exception as error:  # pyarrow's many, of a column whose values are of several types
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"--{option}: the data cannot be written to a file ({why})") from error
    return written.getvalue()


def _named(frame: pd.DataFrame, option: str) -> pd.DataFrame:
    """The frame, whose columns need names; its index is not data."""
    odd = [name for name in frame.columns if not isinstance(name, str)]
    if odd:
        raise DataError(f"--{option}: columns must be named by text, and {odd[0]!r} is not text")
    return frame
