"""A disk cache of folders that processes share, with a size limit and eviction of unused entries.

An entry is a folder named by a hash of everything that its content depends on. It is written beside
its place and renamed when complete, so a kill leaves no partial entry; a process that needs an
entry being made waits for it. A cache that cannot be written to costs time, never the search.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from peftsearch.disk.atomic_folder import atomic_folder

__all__ = ["DiskCache"]

_Read = TypeVar("_Read")


class DiskCache:
    """Entries of one `kind`, in a folder of $PEFTSEARCH_CACHE or of the user's cache folder.

    `variable` names the environment variable with the size limit in GB; `default_gb` applies where
    it is unset.
    """

    def __init__(self, kind: str, variable: str, default_gb: float) -> None:
        self.kind, self.variable, self.default_gb = kind, variable, default_gb

    @property
    def folder(self) -> Path:
        own = os.environ.get("PEFTSEARCH_CACHE")
        users = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return (Path(own) if own else Path(users) / "peftsearch").expanduser() / self.kind

    @property
    def limit(self) -> int:
        """The size limit in bytes."""
        try:
            gigabytes = float(os.environ.get(self.variable, self.default_gb))
            return max(0, int(gigabytes * 1e9))
        except (ValueError, OverflowError):
            return int(self.default_gb * 1e9)

    @property
    def bytes(self) -> int:
        """The size of all entries on disk, in bytes."""
        return sum(_bytes_of(entry) for entry in self._entries())

    def get_or_make(
        self,
        key: Mapping[str, Any],
        read: Callable[[Path], _Read],
        make: Callable[[Path], object] | None,
    ) -> _Read | None:
        """Return `read` applied to the entry of `key` (JSON values); `make` fills a missing one.

        None if the disk is full, read-only or not ours, or if the entry is missing and `make` is
        None. `read` raises ValueError, KeyError, EOFError or RuntimeError on a damaged entry, which
        is then made again.
        """
        text = json.dumps(dict(key), sort_keys=True)
        folder = self.folder / hashlib.sha256(text.encode()).hexdigest()[:24]
        try:
            found = _read(folder, read)
            if found is None and make is not None:
                with _alone(folder):
                    found = _read(folder, read)  # another process may have made it meanwhile
                    if found is None:
                        _make(folder, make)
                        found = _read(folder, read)
                self._evict(folder)
            return found
        except OSError:
            return None

    def _entries(self) -> list[Path]:
        found = self.folder.glob("[!.]*")  # without those that are being made
        return [entry for entry in found if (entry / "entry.json").is_file()]

    def _evict(self, made: Path) -> None:
        """Remove the least recently used entries, but not `made`, until the rest is within the
        limit. A process that has mapped an entry's files can still read them.
        """
        with contextlib.suppress(OSError):
            by_use = sorted(self._entries(), key=lambda e: (e / "entry.json").stat().st_mtime)
            sizes = {entry: _bytes_of(entry) for entry in by_use}
            excess = sum(sizes.values()) - self.limit
            for entry in by_use:
                if excess <= 0:
                    return
                if entry != made:
                    shutil.rmtree(entry, ignore_errors=True)
                    excess -= sizes[entry]


def _bytes_of(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.glob("*"))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make an entry; the kernel frees the lock when it ends."""
    locks = folder.parent.parent / "locks"
    for place in (folder.parent, locks):
        place.mkdir(parents=True, exist_ok=True)
    with open(locks / f"{folder.parent.name}-{folder.name}", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(folder: Path, make: Callable[[Path], object]) -> None:
    try:
        with atomic_folder(folder) as partial:
            make(partial)
    except OSError:
        if not folder.exists():  # where file systems have no locks, another process was faster
            raise


def _read(folder: Path, read: Callable[[Path], _Read]) -> _Read | None:
    """Read an entry; None if there is none. A damaged one is removed."""
    try:
        found = read(folder)
        os.utime(folder / "entry.json")
        return found
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, EOFError, RuntimeError):
        shutil.rmtree(folder, ignore_errors=True)
        return None
