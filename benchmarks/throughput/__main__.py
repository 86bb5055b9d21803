"""Trials per hour: Trainer + peft and ours, interleaved in one run on the same work.

    python benchmarks/throughput [--rounds 3] [--train 1000] [--eval 500] [--out FOLDER] [--quick]
        [--epochs 1] [--scenario BEGINNING]... [--arm BEGINNING]...

Every round trains each of a scenario's configurations once in every arm, in another order of arms
each round, one thread each, no early stopping. CPU seconds of each arm are those of a process of
its own (forked, so that model and data are loaded); what our arms keep on the disk begins empty in
every round and is counted. Ratios are taken within rounds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")

sys.path.insert(0, str(Path(__file__).parent))

import torch  # noqa: E402
from arms import ARMS  # noqa: E402
from scenarios import SCENARIOS, workbench  # noqa: E402
from table import written  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from peftsearch.design.budget import TrainingBudget  # noqa: E402
from peftsearch.training.bench import Workbench  # noqa: E402


def main() -> None:
    asked = _arguments()
    torch.set_num_threads(1)
    torch.autograd.set_multithreading_enabled(False)  # children are forked
    bench = workbench(asked.train, asked.eval)
    budget = TrainingBudget(epochs=asked.epochs, rungs=(1.0,))
    rounds: list[dict[str, Any]] = []
    for index in range(asked.rounds):
        for name in _chosen(SCENARIOS, asked.scenario):
            arms = [a for a in _chosen(ARMS, asked.arm) if a.startswith(SCENARIOS[name].arms)]
            random.Random(index).shuffle(arms)
            for arm in arms:
                found = _measured(bench, name, arm, asked.configurations, budget)
                rounds.append({"round": index, "scenario": name, "arm": arm} | found)
                print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    facts = {
        "train": asked.train,
        "eval": asked.eval,
        "epochs": asked.epochs,
        "rounds": rounds,
        "gemm": _gemm_peak(),
        "flops": {
            name: _flops(bench, name, budget)
            for name in _chosen(SCENARIOS, asked.scenario)
            if name in list(SCENARIOS)[:2]
        },
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "throughput.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    print(written(facts, asked.out))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--eval", type=int, default=500)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--configurations", type=int, default=8, help="samples of the space")
    parser.add_argument("--scenario", action="append", help="only those whose names begin so")
    parser.add_argument("--arm", action="append", help="such names, beside (a), (b) and (d)")
    parser.add_argument("--out", type=Path, default=Path("throughput"))
    parser.add_argument("--quick", action="store_true", help="check that it runs: means nothing")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds, asked.train, asked.eval, asked.configurations = 1, 32, 32, 2
    return asked


def _chosen(names: Iterable[str], beginnings: list[str] | None) -> list[str]:
    """Names with one of the beginnings, all where none is asked for; (a), (b) and (d) always."""
    asked = ("(a)", "(b)", "(d)", *(beginnings or [""]))
    return [name for name in names if name.startswith(tuple(asked))]


def _measured(
    bench: Workbench, scenario: str, arm: str, count: int, budget: TrainingBudget
) -> dict[str, Any]:
    """One arm over a scenario's configurations, in a process of its own."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sending, bench, scenario, arm, count, budget))
    process.start()
    sending.close()
    found: dict[str, Any] = receiving.recv()
    process.join()
    return found


def _child(
    sending: Any, bench: Workbench, scenario: str, arm: str, count: int, budget: TrainingBudget
) -> None:
    cache = tempfile.mkdtemp(prefix="peftsearch-throughput-")
    os.environ["PEFTSEARCH_CACHE"] = cache
    try:
        each = []
        for one in SCENARIOS[scenario].configurations(bench, count):
            cpu, wall = time.process_time(), time.perf_counter()
            metric = ARMS[arm](bench, one, budget, 0)
            each.append(
                {
                    "cpu_s": time.process_time() - cpu,
                    "wall_s": time.perf_counter() - wall,
                    "metric": metric,
                    "trained": one.describe(),
                    "frozen_layers": one.frozen_layers(bench.backbone.shapes),
                }
            )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sending.send({"trials": each, "peak_mib": peak})
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _flops(bench: Workbench, scenario: str, budget: TrainingBudget) -> int:
    """Operations of the matrix products of a trial with everything on."""
    (one,) = SCENARIOS[scenario].configurations(bench, 1)
    with FlopCounterMode(display=False) as counter:
        ARMS["(d) ours, all"](bench, one, budget, 0)
    return int(counter.get_total_flops())


def _gemm_peak() -> float:
    """FLOP/s of the best square sgemm on one thread."""
    best = 0.0
    for n in (384, 768, 1536):
        a, b = torch.randn(n, n), torch.randn(n, n)
        for _ in range(8):
            began = time.perf_counter()
            a @ b
            best = max(best, 2 * n**3 / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    main()
