"""One command runs all parts of the GPU measurements; none can stop another."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Script = Callable[[str], ModuleType]

HANGS = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""


def python(parts: ModuleType, name: str, code: str, limit_s: float = 60.0) -> Any:
    return parts.Part(name, (sys.executable, "-c", code), limit_s)


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie that its parent has yet to wait for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for processes")
def test_a_part_that_raises_or_hangs_stops_no_other(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, parts = script("run"), script("parts")
    monkeypatch.setattr(run, "_GRACE_S", 0.2)
    chosen = [
        python(parts, "raises", "raise SystemError('no such device')"),
        python(parts, "is killed", "import os; os.kill(os.getpid(), 9)"),
        python(parts, "hangs", HANGS, limit_s=2.0),
        python(parts, "is well", "print('measured')"),
    ]
    ended = run.run_parts(chosen, tmp_path, dict(os.environ))
    outcomes = {one.part: one.outcome for one in ended}
    assert outcomes == {
        "raises": "problems",
        "is killed": "exit code -9",
        "hangs": "stopped after 2 s",
        "is well": "well",
    }
    told = json.loads((tmp_path / "run.json").read_text())
    assert {one["part"]: one["outcome"] for one in told} == outcomes
    log = (tmp_path / "log").read_text()
    assert "SystemError: no such device" in log
    assert log.index("== hangs: stopped") < log.index("measured")
    child = int(log.split("child ")[1].split()[0])
    until = time.monotonic() + 10
    while is_running(child) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_running(child), "what a part has started ends with it"


@pytest.mark.slow
def test_a_factor_makes_all_limits_longer(script: Script, tmp_path: Path) -> None:
    run, parts = script("run"), script("parts")
    chosen = [python(parts, "long", "import time; time.sleep(0.5)", limit_s=0.1)]
    (ended,) = run.run_parts(chosen, tmp_path, dict(os.environ), slow=600)
    assert ended.is_well


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--parts", "sped"], "no part begins with sped"),
        (["--tiny"], "has results already"),
    ],
)
def test_what_would_run_nothing_or_mix_results_is_refused(
    words: list[str],
    why: str,
    script: Script,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "speed.json").write_text("{}")
    assert script("run").main([*words, "--out", str(tmp_path)]) == 2
    assert why in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]


def test_without_a_gpu_the_tiny_run_is_named(
    script: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = script("run")
    monkeypatch.setattr(run, "_has_gpu", lambda: False)
    assert run.main(["--out", str(tmp_path / "new")]) == 2
    assert "--tiny" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("tiny", [False, True])
def test_every_script_and_test_of_a_part_is_there(tiny: bool, script: Script) -> None:
    common, own = script("common"), script("parts").parts(tiny)
    named = [word for part in own for word in part.command if word.endswith(".py")]
    assert len(named) >= len(own)
    assert [word for word in named if not (common.ROOT / word).exists()] == []


def test_parts_have_names_of_their_own_and_limits_above_what_they_give_themselves(
    script: Script,
) -> None:
    own = script("parts").parts(tiny=False)
    assert len({part.name for part in own}) == len(own)
    for part in own:
        seconds = [float(word) for word in part.command[2:3] if word.isdigit()]
        assert all(part.limit_s > own_s for own_s in seconds)
