"""Whole searches through the command line, of forks (`killable.py`): killed, resumed, stopped; and,
as a shell starts it, on the real MiniLM.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.killable import Killable, imported, started

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, epochs: 3, rungs: [0.3, 1], rung_examples: 10}
places: {attn: {at: [query+value, heads]}, ffn: {at: [out]}}
choices:
  attn: {form: [none, linear, prefix], composition: [add, {scaled: {s: [2, 4]}}, gated]}
  ffn: {form: [none, relu]}
train: {batch_size: 8, lr: {log: [1e-3, 1e-1]}}
seed_with: [head-only-mean, lora, prefix]
"""


@pytest.fixture
def home(tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path) -> Path:
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "data.csv").write_bytes(tiny_sentiment_csv.read_bytes())
    (tmp_path / "model").symlink_to(tiny_bert)
    imported()
    return tmp_path


def begin(*more: str) -> list[str]:
    return [
        *("search", "space.yaml", "--model", "model", "--train", "data.csv", "--study", "s"),
        *more,
    ]


def run(home: Path, *words: str) -> str:
    """What a command that ends well has printed."""
    process = started(list(words), home)
    assert process.wait(300) == 0, process.errors
    return (home / "out.txt").read_text()


def until(process: Killable, what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not what() and process.is_running and time.monotonic() < deadline:
        time.sleep(0.002)


def results(home: Path) -> dict[int, dict[str, Any]]:
    found = (home / "studies/s/trials").glob("*/result.json")
    read = [json.loads(path.read_text()) for path in found]
    return {result["number"]: result for result in read}


def trained(home: Path) -> list[dict[str, Any]]:
    return [r for r in results(home).values() if r["state"] in ("full", "stopped")]


def same_but_time(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Equal curves, whatever the clock said."""
    clock = ("wall_s", "cpu_s", "eval_s")
    curves = [[{k: v for k, v in p.items() if k not in clock} for p in r["curve"]] for r in (a, b)]
    return curves[0] == curves[1]


def assert_no_trial_runs(home: Path) -> None:
    counts = json.loads(run(home, "status", "s", "--json"))["counts"]
    numbers = {int(path.name) for path in (home / "studies/s/trials").iterdir()}
    assert counts["running"] == 0
    assert counts["waiting"] == len(numbers - set(results(home)))


def assert_every_trial_is_accounted_for(home: Path) -> None:
    counts = json.loads(run(home, "status", "s", "--json"))["counts"]
    assert counts["running"] == 0
    assert sum(counts[s] for s in ("full", "stopped", "failed", "duplicate", "infeasible")) == len(
        results(home)
    )


@pytest.mark.slow
def test_a_trial_cut_off_and_resumed_has_the_curve_of_an_uninterrupted_one(home: Path) -> None:
    process = started(begin("--trials", "2"), home)
    until(process, (home / "studies/s/trials/00001/checkpoint.safetensors").exists)
    process.kill()
    run(home, "search", "--study", "s", "--resume", "--trials", "2")
    cut = results(home)[1]
    run(home, "export", "s", "recipe.yaml", "--at", "#1", "--to", "recipe")
    again = json.loads(run(home, "train", "recipe.yaml", "--json"))
    assert again["validation_accuracy"] == cut["metric"]


@pytest.mark.slow
def test_two_searches_of_one_seed_give_every_trial_the_same_curve(home: Path) -> None:
    found = []
    for name in ("a", "b"):
        words = begin("--trials", "5")
        words[words.index("s")] = name
        run(home, *words)
        (home / "studies" / name).rename(home / "studies/s")
        found.append(results(home))
        (home / "studies/s").rename(home / "studies" / name)
    assert found[0].keys() == found[1].keys()
    for number, result in found[0].items():
        assert result["configuration_hash"] == found[1][number]["configuration_hash"]
        assert same_but_time(result, found[1][number])


@pytest.mark.slow
def test_an_interrupt_saves_everything_and_ends_with_130(home: Path) -> None:
    process = started(begin("--trials", "500", "--workers", "2"), home)
    until(process, lambda: len(results(home)) >= 3)
    os.kill(process.leader, signal.SIGINT)
    until(process, lambda: "\nstopping: " in process.errors)
    assert "\nstopping: " in process.errors
    assert process.wait(300) == 130
    assert "is saved. Continue with: peftsearch search --study s --resume" in process.errors
    assert "Traceback" not in process.errors
    assert_no_trial_runs(home)
    before = results(home)
    run(home, "search", "--study", "s", "--resume", "--trials", str(len(trained(home)) + 2))
    after = results(home)
    assert all(after[number] == result for number, result in before.items())
    assert len(after) > len(before)
    assert_every_trial_is_accounted_for(home)


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once_and_costs_no_trial_its_second_chance(home: Path) -> None:
    words = begin("--trials", "500", "--workers", "2")
    for _ in range(3):  # more often than a trial may be cut off by what may be its own fault
        (home / "errors.txt").unlink(missing_ok=True)  # of the command before
        interrupted_twice(started(words, home))
        assert_no_trial_runs(home)
        words = ["search", "--study", "s", "--resume", "--trials", "500", "--workers", "2"]
    assert [r for r in results(home).values() if r["state"] == "failed"] == []


def interrupted_twice(process: Killable) -> None:
    until(process, lambda: " begins: " in process.errors)
    os.killpg(process.leader, signal.SIGINT)
    until(process, lambda: "\nstopping: " in process.errors)
    with contextlib.suppress(ProcessLookupError):  # tiny trials are saved as fast
        os.killpg(process.leader, signal.SIGINT)
    assert process.wait(300) == 130
    assert "Traceback" not in process.errors
    assert "out of memory" not in process.errors


@pytest.mark.slow
def test_an_interrupt_while_workers_load_ends_the_search_before_they_have(home: Path) -> None:
    process = started(begin("--trials", "500", "--workers", "2"), home, anew=True)
    until(process, lambda: len(process.workers()) == 2)
    os.killpg(process.leader, signal.SIGINT)
    assert process.wait(300) == 130
    assert "stopping: no trial is under way" in process.errors
    assert "Traceback" not in process.errors
    assert results(home) == {}


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_no_trial_and_is_replaced(home: Path) -> None:
    process = started(begin("--trials", "12", "--workers", "2"), home)
    until(process, lambda: len(results(home)) >= 2)
    os.kill(max(process.workers()), signal.SIGKILL)
    assert process.wait(300) == 0, process.errors
    assert "died (SIGKILL: out of memory?)" in process.errors
    assert len(trained(home)) + sum(r["state"] == "failed" for r in results(home).values()) >= 12
    assert_every_trial_is_accounted_for(home)


@pytest.mark.slow
def test_a_second_search_of_a_study_is_refused_while_one_works_on_it(home: Path) -> None:
    process = started(begin("--trials", "500"), home)
    until(process, lambda: len(results(home)) >= 1)
    beside = home / "beside"
    beside.mkdir()
    for name in ("studies", "model", "data.csv"):
        (beside / name).symlink_to(home / name)
    second = started(["search", "--study", "s", "--resume", "--trials", "1"], beside)
    code = second.wait(300)
    process.kill()
    assert code == 2
    assert "study 's' is being searched by process" in second.errors


@pytest.mark.slow
@pytest.mark.begins_first
def test_a_search_on_the_real_minilm_beats_guessing_and_exports_what_it_found(
    tmp_path: Path, minilm: Path
) -> None:
    (tmp_path / "space.yaml").write_text(
        SPACE.replace("epochs: 3", "epochs: 2, train_examples: 160, eval_examples: 100")
    )
    subprocess.run(
        [
            *(sys.executable, "-m", "peftsearch"),
            *("search", "space.yaml", "--model", "demo:minilm", "--task", "demo:tweets"),
            *("--study", "s", "--trials", "3"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    imported()
    frontier = json.loads(run(tmp_path, "frontier", "s", "--json"))
    assert frontier["points"][-1]["metric"] > frontier["metric"]["worst"]
    assert frontier["hypervolume"] > 0
    number = frontier["points"][-1]["number"]
    for to, out in (("native", "OUT"), ("recipe", "recipe.yaml")):
        run(tmp_path, "export", "s", out, "--at", f"#{number}", "--to", to)
    said = run(tmp_path, "predict", "OUT", "what a lovely morning").strip()
    assert said in ("negative", "neutral", "positive")
