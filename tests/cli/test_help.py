"""Starting up: help is there at once, without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from peftsearch.cli.main import run
from support.standin import create, open_study, take, train_for_nothing

HEAVY = (
    *("ray", "torch", "transformers", "optuna", "pandas", "plotly", "datasets", "numpy", "rich"),
    *("tqdm", "ruamel", "sklearn", "sqlalchemy", "huggingface_hub", "pyarrow", "jinja2"),
)
RECORDED = Path(__file__).parents[2] / "studies"
COMMANDS = (
    "search worker status frontier report export train predict ls show check doctor launch".split()
)


def test_help_and_status_import_none_of_the_heavy_libraries() -> None:
    """And help not even pydantic, which checks what `status` reads."""
    program = (
        "import sys; from peftsearch.cli.main import run; run(['--help']); "
        "assert 'pydantic' not in sys.modules; "
        f"assert run(['status', 'sst2-minilm', '--studies', {str(RECORDED)!r}]) == 0; "
        f"print('loaded:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.splitlines()[-1] == "loaded: []"


@pytest.mark.slow
def test_looking_at_a_study_loads_neither_torch_nor_transformers(
    tmp_path: Path, tiny_bert: Path
) -> None:
    folder = create(tiny_bert, tmp_path / "studies")
    study = open_study(folder)
    for _ in range(3):
        train_for_nothing(study, take(study))
    looks = [[command, folder.name] for command in ("status", "frontier", "report")]
    looks.append(["show", f"{folder.name}#0"])
    commands = [[*look, "--studies", str(folder.root.parent)] for look in looks]
    program = (
        "import sys; from peftsearch.cli.main import run; "
        f"print('codes:', [run(command) for command in {commands}]); "
        "print('loaded:', [m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.splitlines()[-2:] == ["codes: [0, 0, 0, 0]", "loaded: []"]


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
