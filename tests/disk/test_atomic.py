"""Files are replaced whole and grow by whole lines, whatever fails on the way."""

from __future__ import annotations

import errno
import os
import signal
import warnings
from pathlib import Path

import pytest

from peftsearch.disk.atomic import append_line, end_of_last_line, write_atomic
from peftsearch.errors import MissingError


def _disk_full_after(allowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the disk takes `allowed` bytes, by short writes, then none."""
    real_write = os.write
    left = allowed

    def write(descriptor: int, content: bytes) -> int:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = real_write(descriptor, bytes(content)[:left])
        left -= taken
        return taken

    monkeypatch.setattr(os, "write", write)


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "é∥")
    assert (tmp_path / "a").read_bytes() == "é∥".encode()


@pytest.mark.parametrize("allowed", [0, 1, 5])
def test_a_full_disk_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    _disk_full_after(allowed, monkeypatch)
    with pytest.raises(MissingError, match="No space left"):
        write_atomic(path, b"new content")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_an_interrupt_before_the_rename_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", b"new")
    assert os.listdir(tmp_path) == []


def _writer_that_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A process in the middle of writing `path`."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if not process:

        def waiting(_: int) -> None:
            os.write(writing, b"here")
            signal.pause()

        monkeypatch.setattr(os, "fsync", waiting)
        write_atomic(path, b"half")
        os._exit(1)
    assert os.read(reading, 4) == b"here"
    return process


def test_what_a_killed_writer_left_goes_with_the_next_write_and_a_living_ones_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = [".a.tmp", "a.0123456789ab.tmp", ".a.0123456789AB.tmp"]
    for name in foreign:
        (tmp_path / name).touch()
    process = _writer_that_waits(tmp_path / "a", monkeypatch)
    write_atomic(tmp_path / "b", b"whole")
    assert len(os.listdir(tmp_path)) == len(foreign) + 2
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    write_atomic(tmp_path / "b", b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([*foreign, "b"])


def test_the_file_is_synced_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        done.append("sync")
        real_sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        done.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomic(tmp_path / "a", b"new")
    assert done == ["sync", "rename", "sync"]


def test_a_missing_folder_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no/a: cannot write it \(No such file"):
        write_atomic(tmp_path / "no" / "a", b"")


@pytest.mark.parametrize("path", [".", "/", "folder"])
def test_a_folder_is_not_written_over(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match=r"cannot write it \(Is a directory"):
        write_atomic(Path(path), "new")
    assert [found.name for found in tmp_path.rglob("*")] == ["folder"]


def test_the_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_cut_off_last_line_goes_with_the_next_append(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "lines"
    append_line(path, "one")
    append_line(path, "other")
    os.truncate(path, path.stat().st_size - cut)
    append_line(path, "three")
    assert path.read_text() == "one\nthree\n"


@pytest.mark.parametrize("allowed", range(6))
def test_a_line_that_does_not_fit_the_disk_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    path = tmp_path / "lines"
    append_line(path, "one")
    _disk_full_after(allowed, monkeypatch)
    with pytest.raises(MissingError, match="No space left"):
        append_line(path, "other")
    assert path.read_text() == "one\n"


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 9000])
def test_the_last_newline_is_found_however_far_back(tmp_path: Path, length: int) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"ab\n" + b"x" * length)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert end_of_last_line(descriptor, 3 + length) == 3
        assert end_of_last_line(descriptor, 2) == 0
    finally:
        os.close(descriptor)
