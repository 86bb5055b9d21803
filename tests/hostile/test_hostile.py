"""A few hundred bad inputs through the command-line entry; `run.py` tries as many as asked.

What must hold for every one of them stands in `support/hostile/check.py`: an exit code of
docs/exit-codes.md within a time limit, no traceback, one sentence of error, no control character on
either stream, no input changed, nothing half-written and nothing outside of its folder.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from support.hostile import here, models
from support.hostile.case import Case
from support.hostile.check import Ran, broken_promises, contents_of, run_here
from support.hostile.kinds import KINDS
from support.hostile.world import SPACE, World

EACH = {"space": 40, "data": 40, "study": 30, "flags": 30, "recipe": 20, "export": 20}
EACH |= {"model": 15, "name": 25}
"""Cases of a kind: about half a minute for all."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def broken_by(case: Case) -> list[str]:
    before = contents_of(case.folder.parent)
    return broken_promises(case, run_here(case, here.run_briefly), before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("default")  # as users have them: the check finds what is printed
def test_no_bad_input_crashes_hangs_or_leaves_half_a_file(
    kind: str, world: World, tmp_path: Path
) -> None:
    broken = {}
    for index in range(EACH[kind]):
        folder = tmp_path / f"{index}" / "case"
        folder.mkdir(parents=True)
        case = KINDS[kind][1](random.Random(f"suite:{kind}:{index}"), world, folder)
        problems = broken_by(case)
        if problems:
            broken[index, case.about, *case.arguments] = problems
    assert broken == {}


@pytest.mark.parametrize("spoil", [models.pickled, models.with_code])
def test_neither_a_pickle_nor_code_beside_a_model_is_run(
    spoil: object, world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "case"
    (folder / "model").mkdir(parents=True)
    for path in world.bert.iterdir():
        (folder / "model" / path.name).write_bytes(path.read_bytes())
    spoil(folder / "model")  # type: ignore[operator]
    words = ["search", str(world.space), "--model", "model", "--study", "s", "--trials", "1"]
    case = Case(folder, [*words, "--train", str(world.data["csv"])], "a trap")
    assert broken_by(case) == []
    assert not list(folder.rglob(models.OWNED))


def test_the_pickle_that_is_refused_would_have_run_code(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    models.pickled(tmp_path)
    load = "import pickle; pickle.load(open('pytorch_model.bin', 'rb'))"
    subprocess.run([sys.executable, "-c", load], cwd=tmp_path, check=True)
    assert (tmp_path / models.OWNED).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["check", "bomb.yaml"], ["status", "../\x1b[31mx"], ["predict", "no\udcffne", "\x9b2J"]],
)
def test_a_process_of_its_own_ends_as_the_entry_does(words: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    lines = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 60)]
    (folder / "bomb.yaml").write_text(SPACE + "l0: &l0 [x]\n" + "".join(lines))
    case = Case(folder, words, "a process")
    before = contents_of(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-m", "peftsearch", *case.arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    ran = Ran(ended.returncode, ended.stdout, ended.stderr)
    assert broken_promises(case, ran, before) == []


# -- the check itself --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ran", "found"),
    [
        (Ran(None, "", "", "ValueError"), "traceback or hang"),
        (Ran(1, "", "Traceback (most recent call last):\n"), "traceback or hang"),
        (Ran(-11, "", ""), "exit code -11"),
        (Ran(2, "", "error: \x1b[31mred is a bad name for a study\n"), "control character"),
        (Ran(0, "label \x9b2J\n", ""), "control character"),
        (Ran(2, "", "no\n"), "no one sentence"),
        (Ran(2, "", "error: first of two errors here\nerror: second of two errors\n"), "no one"),
        (Ran(0, "", "x.py:1: FutureWarning: soon\n"), "a warning"),
        (Ran(2, "", "note\n" * 20 + "error: far too many lines before it\n"), "21 lines"),
    ],
)
def test_what_breaks_a_promise_is_found(ran: Ran, found: str, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    problems = broken_promises(Case(folder, ["ls"], "x"), ran, contents_of(tmp_path))
    assert any(found in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("case/.x.0a1b.tmp", "left behind"),
        ("case/studies/s/space.yaml", "no study"),
        ("case/studies/s/study.json", "no whole one"),
        ("outside.txt", "outside of its folder"),
        ("case/input.csv", "changed"),
    ],
)
def test_what_is_left_on_the_disk_is_found(name: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "case/input.csv").write_text("a good file")
    before = contents_of(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half")
    case = Case(tmp_path / "case", ["ls"], "x")
    problems = broken_promises(case, Ran(0, "", ""), before)
    assert any(found in problem for problem in problems)


@pytest.mark.slow
def test_what_never_ends_is_found(tmp_path: Path) -> None:
    def endless(_: list[str]) -> int:
        while True:
            pass

    ran = run_here(Case(tmp_path, [], "x"), endless, limit_s=1)
    assert "still running after 1 s" in ran.crash
