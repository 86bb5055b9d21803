"""Starting up: help is there at once, without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

from peftsearch.cli.main import run

HEAVY = ("ray", "torch", "transformers", "optuna", "pandas", "plotly", "datasets", "numpy")
COMMANDS = (
    "search worker status frontier report export train predict ls show check doctor launch".split()
)


def test_help_imports_none_of_the_heavy_libraries() -> None:
    program = (
        "import sys; from peftsearch.cli.main import run; run(['--help']); "
        f"print('loaded:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.splitlines()[-1] == "loaded: []"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert [name for name in COMMANDS if f"  {name} " not in text] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("peftsearch ")
