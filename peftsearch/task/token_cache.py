"""Tokens on disk: made once, a chunk of examples at a time, mapped into memory where they are many.

An entry is a folder named by a hash of everything that the tokens depend on. It is written beside
its place and renamed when it is whole, so that processes may race and a kill leaves no half of one.
A cache that cannot be written to costs time and memory, never the search.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftsearch.task.ragged import Ragged

__all__ = ["Chunk", "cache_bytes", "cache_folder", "cache_limit", "tokenised", "tokenizer_hash"]

CHUNK = 10_000
"""Examples tokenised at a time."""
WORTHWHILE = 20_000
"""Fewer examples are tokenised in a second or two, and stay in memory alone."""
IN_MEMORY = 64 * 2**20
"""Bytes of a column that are read; more are mapped."""

_DTYPES = {"inputs": torch.int32, "types": torch.int8, "written": torch.int32}
_used: set[str] = set()
"""Entries that this process reads from: never evicted by it."""


@dataclass(frozen=True)
class Chunk:
    """Token ids of some examples by column (`inputs`, `types`, `written`); how many were cut."""

    columns: Mapping[str, Sequence[Sequence[int]]]
    truncated: int


Make = Callable[[int, int], Chunk]
"""(first example, the one after the last) → their tokens."""


def tokenised(
    count: int, make: Make, key: Callable[[], Mapping[str, Any]]
) -> tuple[dict[str, Ragged], int]:
    """Tokens of `count` examples by column, and how many examples were cut.

    `key()` is everything that they depend on, as JSON values; it is asked for where the cache is.
    """
    if count < WORTHWHILE:
        return _in_memory(count, make)
    name = hashlib.sha256(json.dumps(dict(key()), sort_keys=True).encode()).hexdigest()[:24]
    folder = cache_folder() / name
    _used.add(name)
    try:
        found = _read(folder)
        if found is None:
            _write(folder, count, make)
            _evict()
            found = _read(folder)
    except OSError:  # read-only, full, or not ours
        found = None
    return found if found is not None else _in_memory(count, make)


def cache_folder() -> Path:
    """$PEFTSEARCH_CACHE, or peftsearch/ where the user's caches are."""
    own = os.environ.get("PEFTSEARCH_CACHE")
    users = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(own) if own else Path(users) / "peftsearch").expanduser() / "tokens"


def cache_limit() -> int:
    """Bytes, from $PEFTSEARCH_CACHE_GB; 20 GB."""
    try:
        return int(float(os.environ.get("PEFTSEARCH_CACHE_GB", "20")) * 1e9)
    except ValueError:
        return 20 * 10**9


def cache_bytes() -> int:
    """What the cache takes on the disk."""
    return sum(_bytes_of(entry) for entry in _entries())


def tokenizer_hash(tokenizer: Any) -> str:
    """Of what a tokenizer does, whatever it was last asked to cut or pad to."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        settings = json.loads(backend.to_str())
        facts: Any = {k: v for k, v in settings.items() if k not in ("truncation", "padding")}
    else:
        facts = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    own = [facts, tokenizer.special_tokens_map, getattr(tokenizer, "src_lang", None)]
    own.append(getattr(tokenizer, "tgt_lang", None))
    text = json.dumps(own, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# -- one entry ---------------------------------------------------------------------------------


def _chunks(count: int, make: Make) -> Iterator[Chunk]:
    for first in range(0, count, CHUNK):
        yield make(first, min(first + CHUNK, count))


def _in_memory(count: int, make: Make) -> tuple[dict[str, Ragged], int]:
    parts: dict[str, list[Ragged]] = {}
    truncated = 0
    for chunk in _chunks(count, make) if count else [make(0, 0)]:
        truncated += chunk.truncated
        for name, rows in chunk.columns.items():
            parts.setdefault(name, []).append(Ragged.of(rows, _DTYPES[name]))
    return {name: Ragged.joined(pieces) for name, pieces in parts.items()}, truncated


def _write(folder: Path, count: int, make: Make) -> None:
    """Make an entry; of two processes that make one, the first to end it wins."""
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        facts = _write_columns(partial, count, make)
        (partial / "entry.json").write_text(json.dumps(facts), encoding="utf-8")
        with contextlib.suppress(OSError):
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_columns(folder: Path, count: int, make: Make) -> dict[str, Any]:
    lengths: dict[str, list[np.ndarray[Any, Any]]] = {}
    truncated = 0
    with contextlib.ExitStack() as stack:
        files: dict[str, Any] = {}
        for chunk in _chunks(count, make):
            truncated += chunk.truncated
            for name, rows in chunk.columns.items():
                if name not in files:
                    files[name] = stack.enter_context(open(folder / f"{name}.bin", "wb"))
                own = np.fromiter(map(len, rows), np.int64, len(rows))
                flat = np.fromiter(itertools.chain.from_iterable(rows), np.int64, int(own.sum()))
                files[name].write(torch.from_numpy(flat).to(_DTYPES[name]).numpy().tobytes())
                lengths.setdefault(name, []).append(own)
    for name, own_lengths in lengths.items():
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(own_lengths))])
        np.save(folder / f"{name}.offsets.npy", offsets)
    return {"columns": sorted(lengths), "count": count, "truncated": truncated}


def _read(folder: Path) -> tuple[dict[str, Ragged], int] | None:
    """An entry; None if there is none. A damaged one is taken away."""
    try:
        facts = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        columns = {name: _read_column(folder, name, facts["count"]) for name in facts["columns"]}
        os.utime(folder / "entry.json")
        return columns, int(facts["truncated"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, EOFError, RuntimeError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _read_column(folder: Path, name: str, count: int) -> Ragged:
    offsets = np.load(folder / f"{name}.offsets.npy", allow_pickle=False)
    path, dtype, total = folder / f"{name}.bin", _DTYPES[name], int(offsets[-1])
    size = total * dtype.itemsize
    if len(offsets) != count + 1 or path.stat().st_size != size:
        raise ValueError(f"{path}: not as long as its offsets say")
    if size < IN_MEMORY:
        flat = torch.frombuffer(bytearray(path.read_bytes()), dtype=dtype) if size else None
    else:
        flat = torch.from_file(str(path), shared=False, size=total, dtype=dtype)
    return Ragged(torch.zeros(0, dtype=dtype) if flat is None else flat, offsets)


# -- all of them -------------------------------------------------------------------------------


def _entries() -> list[Path]:
    return [entry for entry in cache_folder().glob("*") if (entry / "entry.json").is_file()]


def _bytes_of(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.glob("*"))


def _evict() -> None:
    """Take away what was not used for longest, until the rest is within the limit."""
    with contextlib.suppress(OSError):
        by_use = sorted(_entries(), key=lambda entry: (entry / "entry.json").stat().st_mtime)
        sizes = {entry: _bytes_of(entry) for entry in by_use}
        excess = sum(sizes.values()) - cache_limit()
        for entry in by_use:
            if excess <= 0:
                return
            if entry.name not in _used:
                shutil.rmtree(entry, ignore_errors=True)
                excess -= sizes[entry]
