"""Memory of a worker: resident after each of many mixed trials, and the peak within each.

Usage: memory.py [TRIALS] [--steps N] [--train N] [--eval N] [--keep] [--uncounted] [--copied].
Random samples of `unified` one after another in this process, MiniLM on tweets, one thread, as a
worker trains them: to a rung, a checkpoint, to the end. `--keep` gives no memory back between
trials and phases, `--uncounted` fills batches as if prompts and prefixes took no room, `--copied`
writes checkpoints by way of safetensors' `save`: all was so once. The peak is of resident pages of
the trial alone. Linux only. Needs the demo extra.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration
from peftsearch.space.random_samples import draw_samples
from peftsearch.space.space import load_space
from peftsearch.task.spec import TaskSpec
from peftsearch.training import checkpoint, loop
from peftsearch.training.bench import Workbench
from peftsearch.training.frozen.caching_cost import SHARED_BY
from peftsearch.training.loop import TrainingRun
from peftsearch.training.memory import allocator

_LIMIT = 14 << 30
"""Bytes of data that this process may have: others work on the machine, too."""


@dataclass(frozen=True)
class Trial:
    """One trial's memory, page faults and CPU time; sizes in MiB."""

    resident: float
    peak: float
    faults: int
    cpu_s: float


def main(asked: argparse.Namespace) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_LIMIT, _LIMIT))
    torch.set_num_threads(1)
    if asked.keep:
        allocator.BETWEEN_TRIALS = loop.WITHIN_A_TRIAL = 1 << 62
    if asked.uncounted:
        _count_no_prompts()
    if asked.copied:
        _copy_checkpoints()
    spec = TaskSpec(name="demo:tweets", train_examples=asked.train, eval_examples=asked.eval)
    bench = Workbench.prepare("demo:minilm", spec, with_prompts=True)
    space = load_space("unified")
    sampled = draw_samples(space.on(bench.backbone.shapes)).configurations[: asked.trials]
    budget = TrainingBudget(max_steps=asked.steps, rungs=(0.5, 1.0), rung_examples=asked.eval // 2)
    print("trial  resident MiB  peak MiB  page faults  CPU-s  trained", flush=True)
    done = []
    for number, one in enumerate(sampled):
        done.append(_trial(bench, one, budget))
        print(_line(number, done[-1], one), flush=True)
    print(_summary(done))


def _trial(bench: Workbench, one: Configuration, budget: TrainingBudget) -> Trial:
    """Every rung of one configuration, trained and evaluated."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        _train(bench, one, budget, Path(folder))
    allocator.trim_above(allocator.BETWEEN_TRIALS)
    cpu_s = time.process_time() - began
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    status = _status()
    return Trial(status["RssAnon"], status["VmHWM"] - status["RssFile"], faults, cpu_s)


def _train(bench: Workbench, one: Configuration, budget: TrainingBudget, folder: Path) -> None:
    with TrainingRun(
        *(bench.backbone, bench.train, bench.objective, one, budget, 0), shared_by=SHARED_BY
    ) as run:
        for _, step in run.rungs:
            run.train_to(step)
            limit = None if step == run.full_steps else budget.rung_examples
            run.evaluate(bench.validation, limit)
            if step < run.full_steps:
                run.save(folder / "checkpoint.safetensors")


def _count_no_prompts() -> None:
    from peftsearch.training import positions

    positions.MAX_TRAINED_POSITIONS = dict.fromkeys(positions.MAX_TRAINED_POSITIONS, 1 << 62)
    positions.Positions.of = classmethod(lambda cls, *_: cls())  # type: ignore[method-assign, assignment]


def _copy_checkpoints() -> None:
    from safetensors.torch import save

    def copied(path: Path, tensors: dict[str, torch.Tensor], facts: object) -> None:
        held = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        path.write_bytes(save(held))

    checkpoint.save_tensors = copied  # type: ignore[assignment]


def _status() -> dict[str, float]:
    """Sizes of this process in MiB, by the names of /proc/self/status."""
    pairs = (line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    sizes = ((name, value.split()) for name, value in pairs)
    return {name: int(size[0]) / 1024 for name, size in sizes if size[-1:] == ["kB"]}


def _line(number: int, trial: Trial, one: Configuration) -> str:
    sizes = f"{number:5d}  {trial.resident:12.0f}  {trial.peak:8.0f}"
    return f"{sizes}  {trial.faults:11d}  {trial.cpu_s:5.1f}  {one.describe()}"


def _summary(done: list[Trial]) -> str:
    resident = [trial.resident for trial in done]
    middle = sorted(resident)[len(resident) // 2]
    return (
        f"\nresident after a trial: median {middle:,.0f} MiB, most {max(resident):,.0f}, "
        f"last {resident[-1]:,.0f}; peak {max(trial.peak for trial in done):,.0f}; "
        f"{sum(trial.faults for trial in done):,} page faults, "
        f"{sum(trial.cpu_s for trial in done):,.1f} CPU-s; "
        f"after a full collection and malloc_trim: {_least():,.0f}"
    )


def _least() -> float:
    gc.collect()
    allocator.trim()
    return _status()["RssAnon"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=int, nargs="?", default=60)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--train", type=int, default=256)
    parser.add_argument("--eval", type=int, default=320)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--uncounted", action="store_true")
    parser.add_argument("--copied", action="store_true")
    main(parser.parse_args())
