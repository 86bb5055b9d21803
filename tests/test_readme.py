"""Every command of the README runs, in order and in one folder, on a tiny model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from peftsearch.cli.main import run
from support.readme import Command, readme_commands

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
RUN_BY_CI = ("make",)
OF_A_SHELL = ("source",)

EXAMPLE = """\
<!-- test: skip (needs the Hub) -->
```console
$ peftsearch search big --hours 2
```
text `$ not a command`
```console
$ peftsearch search demo --model real --minutes 6 \\
    --study x   # a comment
output, not a command
$ peftsearch predict OUT "two words"
```
```yaml
$ no: command
```
```python
print(1)
```
"""


def test_commands_are_the_dollar_lines_of_console_blocks_and_whole_python_blocks() -> None:
    commands = readme_commands(EXAMPLE)
    assert [(c.kind, c.skip) for c in commands] == [
        ("console", "needs the Hub"),
        ("console", None),
        ("console", None),
        ("python", None),
    ]
    assert commands[2].words == ["peftsearch", "predict", "OUT", "two words"]
    assert commands[3].text == "print(1)\n"


def test_a_command_is_made_small_by_its_model_and_its_limit_only() -> None:
    hub, demo, *_ = readme_commands(EXAMPLE)
    assert hub.made_small("tiny") == ["peftsearch", "search", "big", "--trials", "3"]
    assert demo.made_small("tiny") == (
        "peftsearch search demo --model tiny --trials 3 --study x".split()
    )


def test_the_readme_has_only_commands_that_something_runs() -> None:
    programs = {c.words[0] for c in readme_commands(README) if c.kind == "console" and not c.skip}
    assert programs <= {"peftsearch", *RUN_BY_CI, *OF_A_SHELL}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_what_make_has_made_comes_onto_the_path_as_the_readme_says(tmp_path: Path) -> None:
    (line,) = (c.text for c in readme_commands(README) if c.words[0] == "source")
    made = re.search(r"^VENV := (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert made is not None
    assert line == f"source {made[1]}/bin/activate"
    (tmp_path / made[1]).symlink_to(BIN.parent)
    found = subprocess.run(
        ["bash", "-c", f"{line} && command -v peftsearch"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()).samefile(BIN / "peftsearch")


@pytest.mark.slow
@pytest.mark.begins_first
def test_every_command_of_the_readme_runs(
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = [c for c in readme_commands(README) if c.skip is None]
    runnable = [
        c for c in commands if c.kind == "python" or c.words[0] not in RUN_BY_CI + OF_A_SHELL
    ]
    assert len(runnable) >= 10
    monkeypatch.chdir(tmp_path)
    for command in runnable:
        if command.kind == "python":
            done = in_a_process(command, tmp_path)
            assert done.returncode == 0, f"{command.text}\n{done.stdout}\n{done.stderr}"
        else:  # in this process: importing torch again would take seconds for each
            assert run(command.made_small(str(tiny_bert))[1:]) == 0, command.text
            assert capsys.readouterr().out, command.text


def in_a_process(command: Command, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", command.text],
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
