"""Disks that are full or cannot be written to: one sentence, nothing half-written, nothing lost."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from peftsearch.disk import atomic
from peftsearch.records.folder import StudyFolder, study_names
from support.hostile import here
from support.hostile.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def begin(world: World) -> list[str]:
    words = ["search", str(world.space), "--model", str(world.bert), "--study", "s"]
    return [*words, "--train", str(world.data["csv"]), "--trials", "3"]


RESUME = ["search", "--study", "s", "--resume", "--trials", "3"]


def run(words: list[str]) -> int:
    return here.run(words, lambda: False)


def full_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has room for so many writes, half of the next one, and no more."""
    write_all, left = atomic._write_all, iter(range(writes))

    def limited(descriptor: int, content: bytes) -> None:
        if next(left, None) is None:
            with contextlib.suppress(OSError):
                write_all(descriptor, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_all(descriptor, content)

    monkeypatch.setattr(atomic, "_write_all", limited)


def nothing_half_written(folder: Path) -> bool:
    names = [path.name for path in folder.rglob("*")]
    return not any(name.endswith(".tmp") or ".partial" in name for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("writes", [0, 2, 4, 7, 11, 16, 23, 31])
def test_wherever_the_disk_fills_up_a_search_says_so_and_goes_on_once_there_is_room(
    writes: int,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = begin(world)
    with monkeypatch.context() as patch:
        full_after(writes, patch)
        assert run(words) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert "No space left on device" in error
    assert nothing_half_written(tmp_path)
    names = study_names(tmp_path / "studies")
    finished = StudyFolder.open("s").read().results if names else ()
    assert run(RESUME if names else words) == 0
    results = {result.number: result for result in StudyFolder.open("s").read().results}
    assert all(results[result.number] == result for result in finished)
    assert sum(result.state in ("full", "stopped") for result in results.values()) == 3


@contextlib.contextmanager
def mounted(*commands: str, at: Path) -> Iterator[None]:
    """Mounts for as long as a test takes; skipped where we may not mount."""
    for command in commands:
        words = ["mount", *command.split(), str(at)]
        if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("mounting needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def test_a_search_on_a_disk_of_its_own_that_is_too_small_is_one_sentence(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, disk = begin(world), tmp_path / "disk"
    disk.mkdir()
    with mounted("-t tmpfs -o size=48k tmpfs", at=disk):
        assert run([*words, "--studies", str(disk)]) == 3
        assert nothing_half_written(disk)
        for name in study_names(disk):
            StudyFolder.open(name, disk).read()
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def read_only(world: World, tmp_path: Path) -> Iterator[Path]:
    """Studies that nobody can write to, root neither."""
    studies = tmp_path / "studies"
    shutil.copytree(world.study, studies / "good")
    for lock in (studies / "good").glob("*.lock"):
        lock.unlink()
    with mounted(f"--bind {studies}", "-o remount,ro,bind", at=studies):
        yield studies


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["status", "good"],
        ["frontier", "good"],
        ["show", "good#0"],
        ["ls"],
        ["export", "good", "OUT"],
        ["export", "good", "recipe.yaml", "--to", "recipe"],
        ["report", "good", "--out", "report.html"],
    ],
)
def test_a_study_that_cannot_be_written_to_is_read_all_the_same(
    words: list[str], read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["report", "good"],
        ["search", "--study", "good", "--resume", "--trials", "9"],
        ["export", "good", "studies/OUT"],
        ["report", "good", "--out", "studies/report.html"],
    ],
)
def test_what_would_write_to_a_read_only_folder_is_one_sentence(
    words: list[str],
    read_only: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) == 3
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1
    assert "Read-only file system" in error[0]
    assert str(read_only.name) in error[0]


def test_a_search_in_a_read_only_folder_is_one_sentence(
    world: World, read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*begin(world), "--studies", str(read_only)]) == 3
    assert "Read-only file system" in capsys.readouterr().err.splitlines()[-1]
