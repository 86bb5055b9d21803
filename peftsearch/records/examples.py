"""Per-example results of a trial: statistics of every validation example, in `examples.npz`.

A zip of numpy arrays, without pickle. Each statistic is stored as small as it can be without loss:
truth values as bits, whole numbers as the narrowest unsigned type, and numbers in fp32 where that
is exact.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftsearch.disk.atomic import write_atomic
from peftsearch.errors import UsageError
from peftsearch.task.metrics.per_example import SCORE, Arrays
from peftsearch.task.metrics.table import METRICS

__all__ = ["Examples", "read_examples", "write_examples"]

_METRIC, _SHAPE = "metric", ".shape"
"""Members of the file: the metric's name, and (`NAME.shape`) the shape of an array of bits."""


@dataclass(frozen=True)
class Examples:
    """The statistics of a metric's examples, in the order of the validation split."""

    metric: str
    """For example `accuracy`."""
    arrays: Arrays
    """Name → truth values, int64 or float64, (n,) or (n, columns)."""

    def __len__(self) -> int:
        """Number of examples."""
        return min(map(len, self.arrays.values()))

    @property
    def scores(self) -> NDArray[np.float64] | None:
        """Each example's own score (n,), if the metric is the mean of them; else None."""
        scores = self.arrays.get(SCORE)
        return None if scores is None else scores.astype(np.float64)

    def value(self, at: NDArray[np.int64] | None = None) -> float:
        """The metric, or that of the examples at some indices, which may repeat: a bootstrap's."""
        arrays = self.arrays if at is None else {n: a[at] for n, a in self.arrays.items()}
        return METRICS[self.metric].per_example.value(arrays)


def write_examples(path: Path, examples: Examples) -> None:
    """Write the file atomically."""
    stored: dict[str, NDArray[Any]] = {_METRIC: np.array(examples.metric)}
    for name, values in examples.arrays.items():
        if values.dtype == np.bool_:
            stored[name + _SHAPE] = np.array(values.shape, np.int64)
        stored[name] = _narrowed(values)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **stored)
    write_atomic(path, content.getvalue())


def read_examples(path: Path) -> Examples:
    """Read the file; UsageError if it is damaged, FileNotFoundError if there is none."""
    try:
        # Opened here: numpy leaves a damaged file open that it opened by itself.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            members = {name: stored[name] for name in stored.files}
        metric = str(members.pop(_METRIC))
        if metric not in METRICS:
            raise ValueError(f"metric '{metric}' unknown")
        examples = Examples(metric, _widened(members))
        if len({len(values) for values in examples.arrays.values()}) != 1:
            raise ValueError("its arrays are not of the same examples")
    except FileNotFoundError:
        raise
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: damaged ({error}); restore it from a copy") from error
    return examples


def _narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """The same values in less space; bits are packed eight to a byte, row after row."""
    if values.dtype == np.bool_:
        return np.packbits(values.ravel())
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.min_scalar_type(int(values.max(initial=0))))
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow, values, equal_nan=True) else values


def _widened(members: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays as they were before `_narrowed`."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in members.items():
        if name.endswith(_SHAPE):
            continue
        if name + _SHAPE in members:
            arrays[name] = _unpacked(values, tuple(members[name + _SHAPE].tolist()))
        else:
            whole = np.issubdtype(values.dtype, np.integer)
            arrays[name] = values.astype(np.int64 if whole else np.float64)
    return arrays


def _unpacked(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Truth values of a shape from their bits."""
    count = math.prod(shape)
    if min(shape) < 0 or len(values) != -(-count // 8):
        raise ValueError(f"{len(values)} bytes are not the bits of {shape} truth values")
    return np.unpackbits(values, count=count).astype(np.bool_).reshape(shape)
