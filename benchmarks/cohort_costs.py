"""Costs of a cohort's step: CPU time, bytes written and operations, a member, by size and methods.

    python benchmarks/cohort_costs.py [--models host demo:minilm] [--methods alike mixed ranks]
        [--sizes 1 4 16 32] [--rounds 3] [--beside FOLDER]

`alike`: LoRA of rank 8. `mixed`: eight methods in turn. `ranks`: LoRA of ranks 1 to 64 in turn,
each with its own scale. Operations are those that PyTorch dispatches in forward, backward and
optimiser; bytes are those of tensors that operations make or change (views write none). Both are
exact: the same on every run. CPU time is one thread's, the least of all rounds; `host` is a BERT of
six layers and d=16, of which nothing but the host's work is left. `--beside`: another checkout of
peftsearch, measured in turn with this one, each in its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from cohorts import ONE_OF_EACH, hollow_bert
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.composition import Scaled
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.cohort.cohort import Cohort, member_optimisations
from peftsearch.training.loop import TrainingRun
from peftsearch.training.optimisations import Optimisations

_RANKS = (1, 2, 4, 8, 16, 32, 48, 64)
_WARM = 3
"""Steps before anything is measured."""
Point = tuple[str, str, int]
"""Model, methods, members."""
Cost = dict[str, float]


def main() -> None:
    asked = _arguments()
    if asked.serve:
        _serve(asked.batch, asked.steps)
        return
    trees = {"": None} if asked.beside is None else {"before": asked.beside, "now": None}
    workers = {name: _Worker(folder, asked) for name, folder in trees.items()}
    found: dict[tuple[str, Point], list[Cost]] = {}
    for index in range(asked.rounds):
        for point in _points(asked):
            for name, worker in workers.items():
                cost = worker.measured(point)
                found.setdefault((name, point), []).append(cost)
                print(index, name, *point, cost, file=sys.stderr, flush=True)
    print(_table(list(trees), list(_points(asked)), found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["host", "demo:minilm"])
    parser.add_argument("--methods", nargs="+", default=["alike", "mixed", "ranks"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--batch", type=int, default=8, help="texts of a member, with `host` 2")
    parser.add_argument("--steps", type=int, default=5, help="timed in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _points(asked: argparse.Namespace) -> Iterator[Point]:
    for model in asked.models:
        for methods in asked.methods:
            for size in asked.sizes:
                yield model, methods, size


class _Worker:
    """A process that measures points with one checkout of peftsearch."""

    def __init__(self, folder: Path | None, asked: argparse.Namespace) -> None:
        own = {} if folder is None else {"PYTHONPATH": str(folder.resolve())}
        options = ("--batch", str(asked.batch), "--steps", str(asked.steps))
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | own,
            text=True,
        )

    def measured(self, point: Point) -> Cost:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(point), file=self._process.stdin, flush=True)
        cost: Cost = json.loads(self._process.stdout.readline())
        return cost


def _serve(batch: int, steps: int) -> None:
    """Measure each point that comes as a line, and print its cost as one."""
    torch.set_num_threads(1)
    answers = sys.stdout
    sys.stdout = sys.stderr
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEFTSEARCH_CACHE"] = folder
        benches: dict[str, Workbench] = {}
        for line in sys.stdin:
            model, methods, size = json.loads(line)
            if model not in benches:
                benches[model] = _bench(model, Path(folder))
            texts = 2 if model == "host" else batch
            cost = _cost(benches[model], _configurations(methods, size, texts), steps)
            print(json.dumps(cost), file=answers, flush=True)


def _bench(model: str, folder: Path) -> Workbench:
    spec = TaskSpec(name="demo:tweets", train_examples=2000, eval_examples=64)
    if model != "host":
        return Workbench.prepare(model, spec, "cpu", max_length=32)
    return Workbench.prepare(str(hollow_bert(folder / "model")), spec, "cpu", max_length=8)


def _configurations(methods: str, count: int, batch: int) -> list[Configuration]:
    training = Training(batch_size=batch, head_lr=5e-3)
    names = ONE_OF_EACH if methods == "mixed" else ("lora",)
    made = []
    for index in range(count):
        one = METHODS[names[index % len(names)]].configuration(Head("first"), training)
        if methods == "ranks":
            (lora,) = one.modifications
            rank = _RANKS[index % len(_RANKS)]
            lora = replace(lora.with_width(rank), composition=Scaled(2.0 + index))
            one = replace(one, modifications=(lora,))
        made.append(one)
    return made


def _cost(bench: Workbench, members: list[Configuration], steps: int) -> Cost:
    """Milliseconds, bytes and operations of one step and member."""
    optimisations = Optimisations()
    cohort = Cohort.of(bench.backbone, optimisations)
    budget = TrainingBudget(max_steps=10_000, rungs=(1.0,))
    runs = [
        TrainingRun(
            *(cohort.member_backbone(), bench.train, bench.objective, one, budget, seed),
            optimisations=member_optimisations(optimisations),
        )
        for seed, one in enumerate(members)
    ]
    for _ in range(_WARM):
        cohort.step(runs)
    with _Counted() as counted:
        cohort.step(runs)
    spent = []
    for _ in range(steps):
        began = time.process_time()
        cohort.step(runs)
        spent.append(time.process_time() - began)
    for run in runs:
        run.model.detach()
    each = {"ms": 1000 * min(spent), "kB": counted.written / 1000, "operations": counted.count}
    return {name: value / len(runs) for name, value in each.items()}


class _Counted(TorchDispatchMode):
    """Operations dispatched, and the bytes that they wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        self.count += 1
        self.written += sum(_bytes(tensor) for tensor in _written(func, args, given))
        return given


def _written(func: Any, args: Any, given: Any) -> Iterator[Any]:
    """The tensors that an operation made or changed; none for one that gives views."""
    schema = func._schema
    if func.overloadpacket.__name__.startswith(("empty", "new_empty", "_to_copy.meta")):
        return
    for argument, value in zip(schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tree_leaves(value)
    if not any(argument.alias_info is not None for argument in schema.arguments):
        yield from tree_leaves(given)


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0


def _table(trees: list[str], points: list[Point], found: dict[Any, list[Cost]]) -> str:
    columns = [(unit, tree) for unit in ("ms", "kB", "operations") for tree in trees]
    heads = " | ".join(f"{unit} {tree}".strip() for unit, tree in columns)
    lines = [f"| model | methods | members | {heads} |", "|---|---|--:|" + "--:|" * len(columns)]
    for point in points:
        least = [min(cost[unit] for cost in found[tree, point]) for unit, tree in columns]
        digits = [2 if unit == "ms" else 0 for unit, _ in columns]
        cells = [f"{value:,.{digit}f}" for value, digit in zip(least, digits, strict=True)]
        lines.append("| " + " | ".join([*map(str, point), *cells]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
