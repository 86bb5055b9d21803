"""Predicted costs against measured CPU seconds: random samples of `unified`, and some methods.

Usage: trial_cost.py [SAMPLES]. MiniLM on tweets, one thread; each configuration trains for some
steps, after a first one, and evaluates some texts. One scale, the median of all, turns predicted
multiply-adds into seconds. Needs the demo extra.
"""

from __future__ import annotations

import os
import sys
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.cost.trial import Workload, scale_of, trial_cost
from peftsearch.design.methods import METHODS
from peftsearch.space.random_samples import draw_samples
from peftsearch.space.space import load_space
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun
from peftsearch.training.optimisations import Optimisations

_STEPS, _EVALUATED = 4, 128
_METHODS = ("lora", "full", "diff-pruning", "prompt", "prefix-mlp", "dora", "vera", "unipelt")


def configurations(bench: Workbench, count: int) -> dict[str, Configuration]:
    """Methods of the literature, and the first random samples."""
    shapes = bench.backbone.shapes
    found = {name: METHODS[name].configuration(Head("mean")).within(shapes) for name in _METHODS}
    samples = draw_samples(load_space("unified").on(shapes)).configurations[:count]
    return found | {f"sample {i}": sample for i, sample in enumerate(samples)}


def measured(bench: Workbench, configuration: Configuration) -> tuple[float, Workload]:
    """CPU seconds of some steps and an evaluation, and what these read."""
    optimisations = Optimisations().without("activations", "features", "graphs")
    budget = TrainingBudget(max_steps=_STEPS + 1)
    with TrainingRun(
        *(bench.backbone, bench.train, bench.objective, configuration, budget, 0),
        optimisations=optimisations,
    ) as run:
        run.train_to(1)
        began = run.cpu_s
        run.train_to(_STEPS + 1)
        run.evaluate(bench.validation, _EVALUATED, True)
        seconds = run.cpu_s - began
        batches = [run.order.batch(step) for step in range(1, _STEPS + 1)]
    padded = [int(run.order.lengths[batch].max()) for batch in batches]
    evaluated = float(bench.validation.inputs.lengths[:_EVALUATED].mean())
    batch = float(np.mean([len(batch) for batch in batches]))
    load = Workload(_STEPS, batch, float(np.mean(padded)), _EVALUATED, evaluated)
    return seconds, load.without_kept()


def main(count: int) -> None:
    torch.set_num_threads(1)
    spec = TaskSpec(name="demo:tweets", train_examples=2000, eval_examples=_EVALUATED)
    bench = Workbench.prepare("demo:minilm", spec, with_prompts=True)
    shapes = bench.backbone.shapes
    seconds, costs, lines = [], [], []
    for name, configuration in configurations(bench, count).items():
        took, load = measured(bench, configuration)
        cost = trial_cost(configuration, shapes, load)
        seconds.append(took)
        costs.append(cost.total)
        lines.append(f"{name}: {configuration.describe()} ({cost.reason})")
    scale = scale_of(costs, seconds)
    ratios = [scale * cost / took for cost, took in zip(costs, seconds, strict=True)]
    for ratio, took, line in zip(ratios, seconds, lines, strict=True):
        print(f"{took:7.2f} s, predicted {ratio:.2f} times as long  {line}")
    within = sum(0.5 <= ratio <= 2 for ratio in ratios) / len(ratios)
    print(f"{len(ratios)} configurations, the longest {max(seconds) / min(seconds):.1f} times the")
    print(f"shortest; {within:.0%} within a factor of 2,", end=" ")
    print(f"median error {median(abs(ratio - 1) for ratio in ratios):.0%},", end=" ")
    print(f"{1e-9 / scale:.0f}e9 multiply-adds a second")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
