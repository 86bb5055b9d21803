"""Every script of the GPU measurements runs, tiny and on a CPU: no rename breaks it unnoticed."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

Script = Callable[[str], ModuleType]

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "benchmarks" / "gpu"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
OWN = ("peftsearch", "support", "arms")
KIT = "checks common decoder facts gpu_tests pack proto search speed".split()
"""Names that the shell scripts for a machine without a network call or import."""


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of what a script imports from the checkout."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWN:
            yield from ((str(node.module), alias.name) for alias in node.names)


def test_the_scripts_have_the_names_that_others_call_them_by() -> None:
    assert set(KIT) <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_everything_that_a_script_imports_is_there(name: str) -> None:
    for module, own in imported(FOLDER / f"{name}.py"):
        found = importlib.import_module(module)
        nested = importlib.util.find_spec(f"{module}.{own}") if hasattr(found, "__path__") else None
        assert hasattr(found, own) or nested, f"{module}.{own}"


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "trainer"])
def test_a_script_is_imported_without_doing_anything(
    name: str, script: Script, tmp_path: Path
) -> None:
    script(name)
    assert list(tmp_path.iterdir()) == []


# -- each part ---------------------------------------------------------------------------------


def run(part: str, out: Path) -> dict[str, Any]:
    """Facts of a part by the name of their file; fails if the part has problems."""
    words = ["--tiny", "--slow", "10", "--out", str(out), "--parts", part]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "run.py"), *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return {file.stem: json.loads(file.read_text()) for file in out.glob("*.json")}


def skipped(facts: dict[str, Any]) -> list[str]:
    return [name for name, fact in facts.items() if "skipped" in fact]


@pytest.mark.slow
def test_facts(tmp_path: Path) -> None:
    facts = run("facts", tmp_path)["facts"]
    assert set(facts) == {"machine", "products", "copies", "attention"}
    assert {"torch", "peft", "cpu", "cores", "date"} <= facts["machine"].keys()
    (shape,) = facts["products"].values()
    assert set(shape) == {"fp32", "tf32", "bf16"}
    assert facts["copies"]["device_gb_s"] > 0
    assert (tmp_path / "summary.md").read_text().startswith("no GPU: nothing is measured, ")


@pytest.mark.slow
def test_checks(tmp_path: Path) -> None:
    facts = run("checks", tmp_path)["checks"]
    assert skipped(facts) == ["waits, 12 methods"]
    graphs = [fact for name, fact in facts.items() if name.startswith("graphs, ")]
    assert len(graphs) == 3
    assert all(fact["replays"] > 0 for fact in graphs)
    assert facts["graphs by method, fp32"]["lora"]["passed"]
    for name in ("alone, fp64", "the same bits twice", "evaluated, as on a CPU"):
        assert facts[name]["passed"], name


@pytest.mark.slow
def test_speed(tmp_path: Path) -> None:
    facts = run("speed", tmp_path)["speed"]
    assert skipped(facts) == []
    for name in ("fp32", "tf32", "bf16"):
        assert {f"{count} lora, {name}" for count in (1, 2, 3, 4)} <= facts.keys(), name
        assert facts[f"3 trials, {name}" if name != "tf32" else "1 trial, fp32"]["loss"] > 0
    assert {"step_ms", "trial_s"} == facts["(b) in bf16"].keys()
    mixed = facts["8 mixed, fp32"]
    assert mixed["step_ms"] == pytest.approx(mixed["pass_ms"] / 8, abs=1e-3)
    parts = ("batch", "transfer", "pass", "optimisers", "rest")
    # On a CPU nothing is launched without being computed: the host's parts are the whole pass.
    host = sum(mixed[f"host_{part}_ms"] for part in parts)
    assert host == pytest.approx(mixed["pass_ms"], rel=0.05)
    assert facts["1 lora, fp32"]["kernels"] > 0


@pytest.mark.slow
def test_the_prototype(tmp_path: Path) -> None:
    facts = run("proto compiled", tmp_path)["proto_compiled"]
    assert set(facts) == {f"2 stacked, {name}, compiled" for name in ("tf32", "bf16", "fp32")}
    assert all(fact["host_ms"] <= fact["pass_ms"] for fact in facts.values())


@pytest.mark.slow
def test_the_decoder(tmp_path: Path) -> None:
    facts = run("decoder", tmp_path)["decoder"]
    assert skipped(facts) == []
    assert facts["built"]["parameters"] > 0
    for name in ("Trainer + peft", "alone", "1 on a pass", "2 on a pass", "4 on a pass"):
        assert facts[name]["tokens_s"] > 0, name
    assert facts["1 on a pass, graphs"]["replays"] > 0
    assert facts["written"]["token_ms"] > 0


@pytest.mark.slow
def test_a_search_with_graphs_in_its_worker(tmp_path: Path) -> None:
    (facts,) = run("search", tmp_path)["search"].values()
    assert facts["trials"] == 2
    assert facts["states"] == {"full": 2}
    assert facts["failed"] == []


@pytest.mark.slow
def test_tests_are_found_where_they_have_moved_to() -> None:
    words = ["-m", "pytest", "-q", "--collect-only", "-p", "gpu_tests", "-p", "no:cacheprovider"]
    moved = "tests/task/test_transfer.py"
    assert not (ROOT / moved).exists()
    done = subprocess.run(
        [sys.executable, *words, moved],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(FOLDER), "KIT_DEVICE": "cpu"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/task/tokens/test_transfer.py::test_on_a_gpu_the_values_arrive" in done.stdout


# -- pieces ------------------------------------------------------------------------------------


def test_a_part_within_another_counts_towards_itself_alone(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds: 1 of the step, 2 of the pass, 4 of the step, 8 of the optimiser, 16 of the step."""
    module = script("host_parts")
    clock = iter([0.0, 1.0, 3.0, 7.0, 15.0, 31.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    parts = module.HostParts()
    inner = [parts.timed(lambda: None, name) for name in ("pass", "optimisers")]
    parts.timed(lambda: [call() for call in inner], "rest")()
    assert parts.spent == {"pass": 2.0, "optimisers": 8.0, "rest": 1.0 + 4.0 + 16.0}


def test_methods_are_timed_within_the_context_alone(script: Script) -> None:
    module = script("host_parts")
    before = [vars(owner)[name] for owner, name, _ in module._PARTS]
    with module.host_parts():
        during = [vars(owner)[name] for owner, name, _ in module._PARTS]
    after = [vars(owner)[name] for owner, name, _ in module._PARTS]
    assert all(old is not new for old, new in zip(before, during, strict=True))
    assert all(old is new for old, new in zip(before, after, strict=True))


def test_a_packed_model_is_unpacked_to_the_precision_it_was_packed_in(
    script: Script, tmp_path: Path
) -> None:
    pack, draw = script("pack"), torch.Generator().manual_seed(0)
    words = torch.randn(50, 8, generator=draw) * torch.logspace(-3, 2, 50)[:, None]
    words[7] = 0
    tensors = {
        "embeddings.word_embeddings.weight": words,
        "layer.weight": torch.randn(8, 8, generator=draw),
        "position_ids": torch.arange(5),
    }
    for name in ("model", "again"):
        (tmp_path / name).mkdir()
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    pack.main(["pack", str(tmp_path / "model"), str(tmp_path / "packed.npz")])
    pack.main(["unpack", str(tmp_path / "packed.npz"), str(tmp_path / "again")])
    found = load_file(tmp_path / "again" / "model.safetensors")
    assert {name: t.dtype for name, t in found.items()} == {n: t.dtype for n, t in tensors.items()}
    assert torch.equal(found["position_ids"], tensors["position_ids"])
    # Half a step of int8 of each row's largest value, and half a bit of fp16's eleven.
    step = words.abs().amax(1, keepdim=True) / 127
    difference = (found["embeddings.word_embeddings.weight"] - words).abs()
    assert bool((difference <= step * 0.5001).all())
    np.testing.assert_allclose(found["layer.weight"], tensors["layer.weight"], rtol=2**-11)


def test_of_tests_with_one_name_none_is_chosen(script: Script) -> None:
    plugin = script("gpu_tests")
    assert plugin.present("tests/gone/test_docstrings.py") == "tests/gone/test_docstrings.py"
    assert plugin.present("tests/test_readme.py") == "tests/test_readme.py"
