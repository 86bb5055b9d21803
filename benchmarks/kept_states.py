"""Seconds saved by stored hidden states from the second trial on: LoRA in upper layers, a head.

Usage: kept_states.py [TRAIN] [EVAL]. CPU seconds of one epoch in batches of 16 and one evaluation,
one thread, with the states at hand and without the optimisations that keep or skip. Needs the
demo extra.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.frozen.caching_cost import SHARED_BY
from peftsearch.training.loop import TrainingRun
from peftsearch.training.optimisations import Optimisations

_WITHOUT = Optimisations().without("activations", "rows", "features")


def main(train: int, held_out: int) -> None:
    torch.set_num_threads(1)
    os.environ["PEFTSEARCH_CACHE"] = tempfile.mkdtemp(prefix="peftsearch-kept-")
    spec = TaskSpec(name="demo:tweets", train_examples=train, eval_examples=held_out)
    bench = Workbench.prepare("demo:minilm", spec)
    layers = bench.backbone.shapes.layers
    print("| tuned | s without | s with | times |\n|---|--:|--:|--:|")
    for upper in (layers, layers // 2, 2, 1, 0):
        one = _upper(upper, layers)
        _seconds(bench, one, Optimisations())  # the first trial computes the states
        plain, kept = (
            _seconds(bench, one, optimisations) for optimisations in (_WITHOUT, Optimisations())
        )
        print(f"| upper {upper} of {layers} | {plain:.2f} | {kept:.2f} | {plain / kept:.1f} |")


def _upper(count: int, layers: int) -> Configuration:
    training = Training(lr=(("linear", 1e-3),), batch_size=16)
    chosen = tuple(range(layers - count, layers))
    lora = METHODS["lora"].configuration().modifications if count else ()
    return Configuration(tuple(m.on(chosen) for m in lora), Head("first"), training)


def _seconds(bench: Workbench, one: Configuration, optimisations: Optimisations) -> float:
    began = time.process_time()
    budget = TrainingBudget(epochs=1, rungs=(1.0,))
    with TrainingRun(
        *(bench.backbone, bench.train, bench.objective, one, budget, 0),
        optimisations=optimisations,
        shared_by=SHARED_BY,
    ) as run:
        run.train_to(run.full_steps)
        run.evaluate(bench.validation)
    return time.process_time() - began


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:3]]
    main(*(given or [1000, 500]))
