"""Cache of tokens on disk: written once, in chunks of examples; large columns are memory-mapped.

Without a usable disk, tokens stay in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftsearch.disk.cache import DiskCache
from peftsearch.task.tokens.ragged import Ragged

__all__ = ["CACHE", "Chunk", "cached_tokens", "tokenizer_hash"]

CHUNK = 10_000
"""Examples tokenised at a time."""
WORTHWHILE = 20_000
"""Fewer examples are tokenised in a second or two, and are not cached."""
IN_MEMORY = 64 * 2**20
"""Bytes of a column up to which it is read into memory; a larger one is mapped."""

_DTYPES = {"inputs": torch.int32, "types": torch.int8, "written": torch.int32}
CACHE = DiskCache("tokens", "PEFTSEARCH_CACHE_GB", default_gb=20)


@dataclass(frozen=True)
class Chunk:
    """Token ids of some examples by column (`inputs`, `types`, `written`), and the number of
    examples that were cut.
    """

    columns: Mapping[str, Sequence[Sequence[int]]]
    truncated: int


Make = Callable[[int, int], Chunk]
"""(first example, the one after the last) → their tokens."""


def cached_tokens(
    count: int, make: Make, key: Callable[[], Mapping[str, Any]]
) -> tuple[dict[str, Ragged], int]:
    """Tokens of `count` examples by column, and the number of examples that were cut.

    `key()` returns everything that they depend on, as JSON values; hashing texts and a tokenizer
    takes time, so it is called for the cache only.
    """
    if count < WORTHWHILE:
        return _in_memory(count, make)
    found = CACHE.get_or_make(key(), _read, lambda folder: _write(folder, count, make))
    return found if found is not None else _in_memory(count, make)


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of a tokenizer's behaviour, apart from its truncation and padding settings."""
    # A call that truncates or pads sets both on a fast tokenizer; lengths are in the cache's key.
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
    facts = _write_columns(folder, count, make)
    (folder / "entry.json").write_text(json.dumps(facts), encoding="utf-8")


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


def _read(folder: Path) -> tuple[dict[str, Ragged], int]:
    facts = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
    columns = {name: _read_column(folder, name, facts["count"]) for name in facts["columns"]}
    return columns, int(facts["truncated"])


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
