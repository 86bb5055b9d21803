"""A cache of folders: made once, whole or not at all, and kept within its limit."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

import pytest

from peftsearch.disk.cache import DiskCache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskCache:
    monkeypatch.setenv("PEFTSEARCH_CACHE", str(tmp_path))
    return DiskCache("things", "THINGS_GB", default_gb=1)


def read(entry: Path) -> str:
    return (entry / "entry.json").read_text()


def write(text: str, entry: Path) -> None:
    (entry / "entry.json").write_text(text)


def fetched(cache: DiskCache, key: str, text: str) -> str | None:
    return cache.get_or_make({"key": key}, read, lambda entry: write(text, entry))


def test_an_entry_is_made_once(cache: DiskCache) -> None:
    assert cache.get_or_make({"key": "a"}, read, None) is None
    assert fetched(cache, "a", "first") == "first"
    assert fetched(cache, "a", "second") == "first"
    assert fetched(cache, "b", "second") == "second"
    assert cache.bytes == len("first") + len("second")


def test_a_damaged_entry_is_made_anew(cache: DiskCache) -> None:
    assert fetched(cache, "a", "first") == "first"

    def refuse(entry: Path) -> str:
        if read(entry) == "first":
            raise ValueError("damaged")
        return read(entry)

    assert cache.get_or_make({"key": "a"}, refuse, lambda entry: write("anew", entry)) == "anew"


def test_what_a_killed_maker_left_goes_when_its_entry_is_made(cache: DiskCache) -> None:
    def die(entry: Path) -> None:
        write("half", entry)
        os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if not process:
        cache.get_or_make({"key": "a"}, read, die)
        os._exit(1)
    os.waitpid(process, 0)
    assert len(list(cache.folder.iterdir())) == 1
    assert cache.bytes == 0
    assert fetched(cache, "a", "whole") == "whole"
    assert [read(entry) for entry in cache.folder.iterdir()] == ["whole"]


def test_a_failing_maker_leaves_nothing(cache: DiskCache) -> None:
    def fail(entry: Path) -> None:
        write("half", entry)
        raise OSError("the disk is full")

    assert cache.get_or_make({"key": "a"}, read, fail) is None
    assert list(cache.folder.iterdir()) == []


def test_beyond_its_limit_what_was_used_longest_ago_goes(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, key in enumerate("abc"):
        fetched(cache, key, key * 100)
        entry = next(e for e in cache.folder.iterdir() if read(e) == key * 100)
        os.utime(entry / "entry.json", (1000 + age, 1000 + age))
    monkeypatch.setenv("THINGS_GB", str(250 / 1e9))
    assert fetched(cache, "d", "d" * 100) == "d" * 100
    assert sorted(read(entry)[0] for entry in cache.folder.iterdir()) == ["c", "d"]
