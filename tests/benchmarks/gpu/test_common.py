"""Facts of the GPU measurements are saved one by one, whatever happens to the others."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Script = Callable[[str], ModuleType]


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "some.json").read_text())
    return found


def broken() -> None:
    raise RuntimeError("device-side assert")


def test_an_error_stops_no_other_fact_and_is_kept_in_full(script: Script, tmp_path: Path) -> None:
    facts = script("common").Facts("some")
    facts.add("first", broken)
    facts.add("second", lambda: {"ms": 1.5})
    assert read(tmp_path)["second"] == {"ms": 1.5}
    assert "in broken" in read(tmp_path)["first"]["error"]
    assert "RuntimeError: device-side assert" in read(tmp_path)["first"]["error"]
    with pytest.raises(SystemExit) as ended:
        facts.finish()
    assert ended.value.code == 1


def test_each_fact_is_on_the_disk_before_the_next_is_measured(
    script: Script, tmp_path: Path
) -> None:
    facts = script("common").Facts("some")
    facts.add("first", lambda: 1)
    facts.add("second", lambda: read(tmp_path))
    assert read(tmp_path)["second"] == {"first": 1}


def test_without_problems_a_script_ends_with_0(script: Script) -> None:
    facts = script("common").Facts("some")
    facts.add("first", lambda: {"passed": True})
    with pytest.raises(SystemExit) as ended:
        facts.finish()
    assert ended.value.code == 0


def test_after_its_time_a_script_skips_what_is_left(script: Script, tmp_path: Path) -> None:
    script("common").Facts("some", seconds=-1.0).add("first", broken)
    assert read(tmp_path) == {"first": {"skipped": "no time left"}}


def test_what_another_script_found_is_kept_and_no_problem_of_this_one(
    script: Script, tmp_path: Path
) -> None:
    other = {"other": {"error": "out of memory"}}
    (tmp_path / "some.json").write_text(json.dumps(other))
    facts = script("common").Facts("some", adds=True)
    facts.add("own", lambda: 1)
    assert read(tmp_path) == other | {"own": 1}
    with pytest.raises(SystemExit) as ended:
        facts.finish()
    assert ended.value.code == 0


def test_errors_and_checks_not_passed_are_found_at_any_depth(script: Script) -> None:
    facts = {
        "one": {"lora": {"passed": True}, "loreft": {"error": "no QR"}},
        "two": {"passed": False, "furthest": 1.0},
        "three": 3,
    }
    found = list(script("common").problems(facts))
    assert found == ["one, loreft: no QR", "two: not passed"]


def test_a_copy_elsewhere_in_a_checkout_finds_its_root(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = script("common").__file__
    assert original is not None
    (tmp_path / "peftsearch").mkdir()
    (tmp_path / "peftsearch" / "version.py").touch()
    (tmp_path / ".gpu").mkdir()
    copy = shutil.copy(original, tmp_path / ".gpu")
    spec = importlib.util.spec_from_file_location("copied_common", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert tmp_path == module.ROOT
    assert sys.path[0] == str(tmp_path / "benchmarks/throughput")
