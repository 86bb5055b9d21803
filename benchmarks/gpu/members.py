"""Members of a cohort for the measurements: MiniLM and tweets, runs begun and trained together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from common import DEVICE, ON_GPU, SCRATCH
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.precision import DTYPES
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.cohort.cohort import Cohort, member_optimisations
from peftsearch.training.loop import TrainingRun
from peftsearch.training.optimisations import Optimisations
from support.tiny import build_tiny_bert, sentiment_rows, write_csv

__all__ = [
    *("Members", "begin", "budget", "model", "precision", "search_options"),
    *("together", "workbench"),
]

_OF_MEMBERS = member_optimisations(Optimisations())
_NO_END = 10_000
"""Steps of a run that is not trained to its end."""


def precision(name: str) -> str:
    """Have fp32 products computed as `name` (fp32, tf32 or bf16) says; returns the precision of a
    configuration for it.
    """
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    # peftsearch refuses TF32 on a CPU, which has none; before it had this precision of its own,
    # torch's setting alone made the difference.
    known = name in DTYPES and (ON_GPU or name != "tf32")
    return name if known else "fp32"


@cache
def workbench(
    precision: str, train: int, evaluation: int, max_length: int | None = None, device: str = DEVICE
) -> Workbench:
    """MiniLM and so many tweets to train and to evaluate on, cut to `max_length` tokens; on a CPU a
    tiny BERT and sentences of a few words.
    """
    sizes = {"train_examples": train, "eval_examples": evaluation}
    spec = TaskSpec(name="demo:tweets", **sizes) if ON_GPU else _tiny_task(**sizes)
    return Workbench.prepare(model(), spec, device, max_length, precision=precision)


@cache
def model() -> str:
    """MiniLM; without a GPU a tiny BERT, made at the first call."""
    return "demo:minilm" if ON_GPU else str(build_tiny_bert(SCRATCH / "tiny-bert"))


def _tiny_task(**sizes: int) -> TaskSpec:
    return TaskSpec(train=_tiny_csv(), text=("text",), label="label", **sizes)


@cache
def _tiny_csv() -> str:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    return str(write_csv(SCRATCH / "tiny.csv", sentiment_rows(64)))


def search_options() -> list[str]:
    """The same model and data as options of `peftsearch search`."""
    data = ["--task", "demo:tweets"] if ON_GPU else ["--train", _tiny_csv()]
    train, evaluation = (1000, 500) if ON_GPU else (32, 16)
    sizes = ["--train-examples", str(train), "--eval-examples", str(evaluation)]
    return ["--model", model(), *data, *sizes]


def budget(steps: int = _NO_END) -> TrainingBudget:
    """So many steps, and no rung on the way."""
    return TrainingBudget(max_steps=steps, rungs=(1.0,))


def begin(
    bench: Workbench,
    backbone: Backbone,
    configuration: Configuration,
    seed: int = 0,
    optimisations: Optimisations = _OF_MEMBERS,
) -> TrainingRun:
    """A run at its first step, on a backbone or a member's view of it."""
    data = bench.train, bench.objective
    return TrainingRun(
        *(backbone, *data, configuration, budget(), seed), optimisations=optimisations
    )


@dataclass
class Members:
    """Runs that train in the passes of one cohort."""

    cohort: Cohort
    runs: list[TrainingRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Why passes were not replayed, as a search would note it."""
    replays: int = 0
    """Passes that were replays of a CUDA graph."""

    def step(self) -> None:
        """One pass of all; raises the failure of a run that failed."""
        for failure in self.cohort.step(self.runs).values():
            raise failure

    def values(self) -> list[dict[str, Tensor]]:
        """Each run's trained tensors by name, in fp64 on the CPU."""
        return [
            {name: value.detach().double().cpu() for name, value in run.model.parameters.items()}
            for run in self.runs
        ]


@contextmanager
def together(
    bench: Workbench,
    configurations: Sequence[Configuration],
    seeds: Sequence[int] | None = None,
    graphs: bool = True,
    backbone: Backbone | None = None,
) -> Iterator[Members]:
    """Members at their first steps, detached afterwards. `seeds`: all 0 unless given; `backbone`:
    another one than the bench's.
    """
    on = Optimisations() if graphs else Optimisations().without("graphs")
    notes: list[str] = []
    members = Members(Cohort.of(backbone or bench.backbone, on, notes.append), notes=notes)
    _count_replays(members)
    try:
        for one, seed in zip(configurations, seeds or [0] * len(configurations), strict=True):
            view = members.cohort.member_backbone()
            members.runs.append(begin(bench, view, one, seed))
        yield members
        for run in members.runs:
            run.loss_monitor.check()
    finally:
        for run in members.runs:
            run.model.detach()
        members.cohort.free_memory()


def _count_replays(members: Members) -> None:
    graphs = members.cohort.graphs
    if graphs is None:
        return
    replay = graphs._replay

    def counted(*arguments: Any) -> Tensor:
        members.replays += 1
        return replay(*arguments)

    graphs._replay = counted  # type: ignore[method-assign]
