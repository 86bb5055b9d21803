"""Whole searches through the command line: killed, resumed, stopped, and on the real MiniLM."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

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
    return tmp_path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "peftsearch", *words]


def begin(*more: str) -> list[str]:
    return command(
        *("search", "space.yaml", "--model", "model", "--train", "data.csv", "--study", "s"), *more
    )


def start(words: list[str], home: Path) -> subprocess.Popen[bytes]:
    """In a process group of its own, so that all of it can be killed."""
    with (home / "errors.txt").open("wb") as errors:
        return subprocess.Popen(
            words, cwd=home, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )


def errors_of(process: subprocess.Popen[bytes], home: Path) -> str:
    """What a process that is about to end has printed."""
    process.wait(timeout=120)
    return (home / "errors.txt").read_text()


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


@pytest.mark.slow
def test_killed_at_any_moment_nothing_finished_is_lost_and_nothing_is_trained_twice(
    home: Path,
) -> None:
    source = random.Random(0)
    kept: dict[int, dict[str, Any]] = {}
    resume = ["search", "--study", "s", "--resume", "--trials", "6"]
    kills = 0
    for attempt in range(40):
        exists = (home / "studies/s/study.json").exists()
        words = command(*resume) if exists else begin("--trials", "6")
        process = start(words, home)
        # Starting takes seconds and trials tenths of one: kill soon after a trial has begun.
        deadline = time.monotonic() + 60
        before = len(list((home / "studies/s/trials").glob("*")))
        while process.poll() is None and time.monotonic() < deadline:
            if len(list((home / "studies/s/trials").glob("*"))) > before or attempt < 2:
                break
            time.sleep(0.02)
        time.sleep(source.uniform(0, 0.5 if attempt >= 2 else 6))
        if process.poll() is not None:
            assert process.returncode == 0, errors_of(process, home)
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        now = results(home)
        assert all(now[number] == result for number, result in kept.items())
        kept = now
    assert kills >= 3
    final = results(home)
    assert all(final[number] == result for number, result in kept.items())
    hashes = [r["configuration_hash"] for r in trained(home)]
    assert len(set(hashes)) == len(hashes)
    assert len(trained(home)) >= 6 - sum(r["state"] == "failed" for r in final.values())
    assert_every_trial_is_accounted_for(home)


def assert_every_trial_is_accounted_for(home: Path) -> None:
    status = subprocess.run(
        command("status", "s", "--json"), cwd=home, capture_output=True, text=True, check=True
    )
    counts = json.loads(status.stdout)["counts"]
    assert counts["running"] == 0
    assert sum(counts[s] for s in ("full", "stopped", "failed", "duplicate", "infeasible")) == len(
        results(home)
    )


@pytest.mark.slow
def test_a_trial_cut_off_and_resumed_has_the_curve_of_an_uninterrupted_one(home: Path) -> None:
    process = start(begin("--trials", "2"), home)
    checkpoint = home / "studies/s/trials/00001/checkpoint.safetensors"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(
        command("search", "--study", "s", "--resume", "--trials", "2"),
        cwd=home,
        check=True,
        capture_output=True,
    )
    cut = results(home)[1]
    subprocess.run(
        command("export", "s", "recipe.yaml", "--at", "#1", "--to", "recipe"),
        cwd=home,
        check=True,
        capture_output=True,
    )
    again = subprocess.run(
        command("train", "recipe.yaml", "--json"), cwd=home, check=True, capture_output=True
    )
    assert json.loads(again.stdout)["validation_accuracy"] == cut["metric"]


@pytest.mark.slow
def test_two_searches_of_one_seed_give_every_trial_the_same_curve(home: Path) -> None:
    found = []
    for name in ("a", "b"):
        words = [*begin("--trials", "5")]
        words[words.index("s")] = name
        subprocess.run(words, cwd=home, check=True, capture_output=True)
        (home / "studies" / name).rename(home / "studies/s")
        found.append(results(home))
        (home / "studies/s").rename(home / "studies" / name)
    assert found[0].keys() == found[1].keys()
    for number, result in found[0].items():
        assert result["configuration_hash"] == found[1][number]["configuration_hash"]
        assert same_but_time(result, found[1][number])


@pytest.mark.slow
def test_an_interrupt_saves_everything_and_ends_with_130(home: Path) -> None:
    process = start(begin("--trials", "500", "--workers", "2"), home)
    deadline = time.monotonic() + 60
    while len(results(home)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    errors = errors_of(process, home)
    assert process.returncode == 130
    assert "everything is saved. Go on with: peftsearch search --study s --resume" in errors
    assert "Traceback" not in errors
    before = results(home)
    more = str(len(trained(home)) + 2)
    subprocess.run(
        command("search", "--study", "s", "--resume", "--trials", more),
        cwd=home,
        check=True,
        capture_output=True,
    )
    after = results(home)
    assert all(after[number] == result for number, result in before.items())
    assert len(after) > len(before)
    assert_every_trial_is_accounted_for(home)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_no_trial_and_is_replaced(home: Path) -> None:
    process = start(begin("--trials", "12", "--workers", "2"), home)
    deadline = time.monotonic() + 60
    while len(results(home)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    errors = errors_of(process, home)
    assert process.returncode == 0, errors
    assert "died (SIGKILL: out of memory?)" in errors
    assert len(trained(home)) + sum(r["state"] == "failed" for r in results(home).values()) >= 12
    assert_every_trial_is_accounted_for(home)


@pytest.mark.slow
def test_a_second_search_of_a_study_is_refused_while_one_works_on_it(home: Path) -> None:
    process = start(begin("--trials", "500"), home)
    deadline = time.monotonic() + 60
    while len(results(home)) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    second = subprocess.run(
        command("search", "--study", "s", "--resume", "--trials", "1"),
        cwd=home,
        capture_output=True,
        text=True,
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert second.returncode == 2
    assert "study 's' is being searched by process" in second.stderr


@pytest.mark.slow
def test_a_search_on_the_real_minilm_beats_guessing_and_exports_what_it_found(
    tmp_path: Path, minilm: Path
) -> None:
    (tmp_path / "space.yaml").write_text(
        SPACE.replace("epochs: 3", "epochs: 2, train_examples: 160, eval_examples: 100")
    )
    subprocess.run(
        command(
            *("search", "space.yaml", "--model", "demo:minilm", "--task", "demo:tweets"),
            *("--study", "s", "--trials", "3"),
        ),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    found = subprocess.run(
        command("frontier", "s", "--json"), cwd=tmp_path, check=True, capture_output=True
    )
    frontier = json.loads(found.stdout)
    assert frontier["points"][-1]["metric"] > frontier["metric"]["worst"]
    assert frontier["hypervolume"] > 0
    number = frontier["points"][-1]["number"]
    for to, out in (("native", "OUT"), ("recipe", "recipe.yaml")):
        subprocess.run(
            command("export", "s", out, "--at", f"#{number}", "--to", to),
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
    said = subprocess.run(
        command("predict", "OUT", "what a lovely morning"),
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert said in ("negative", "neutral", "positive")
