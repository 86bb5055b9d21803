"""A trial's tensors go with it: nothing holds them until the garbage collector comes."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.training import Training
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun
from support.points import POINT_NAMES, point


@pytest.fixture(scope="module")
def bench(tiny_roberta: Path, tiny_sentiment_csv: Path) -> Workbench:
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    return Workbench.prepare(str(tiny_roberta), spec, with_prompts=True)


CASES = [
    *((name, "fp32") for name in sorted({*POINT_NAMES} - {"cross-attention", "residual-stream"})),
    *((name, "bf16") for name in ("bitfit", "diff-pruning", "full")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), CASES)
def test_the_tensors_of_a_trial_are_freed_with_its_run(
    bench: Workbench, name: str, precision: str
) -> None:
    bench = bench.for_training(Training(precision=precision))
    gc.collect()
    gc.disable()
    try:
        budget = TrainingBudget(max_steps=1, rungs=(1.0,))
        one = point(name, bench.backbone.shapes)
        with TrainingRun(bench.backbone, bench.train, bench.objective, one, budget, 0) as run:
            run.train_to(1)
            run.evaluate(bench.validation, limit=8)
        held = {name: weakref.ref(tensor) for name, tensor in run.model.parameters.items()}
        del run
        assert held
        assert [name for name, tensor in held.items() if tensor() is not None] == []
    finally:
        gc.enable()
