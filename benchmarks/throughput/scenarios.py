"""Scenarios: LoRA in all layers, by the pooling of the head, and samples of the whole space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.space.random_samples import draw_samples
from peftsearch.space.space import load_space
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench

__all__ = ["SCENARIOS", "Scenario", "workbench"]

_BATCH = 32
"""As in spaces/unified.yaml."""


@dataclass(frozen=True)
class Scenario:
    """`arms`: the beginnings of the names of those that run."""

    configurations: Callable[[Workbench, int], list[Configuration]]
    arms: tuple[str, ...] = ("",)


def workbench(train: int, held_out: int) -> Workbench:
    """Tweets and MiniLM, out of the demo extra."""
    spec = TaskSpec(name="demo:tweets", train_examples=train, eval_examples=held_out)
    return Workbench.prepare("demo:minilm", spec)


def _lora(pooling: str, layers: tuple[int, ...] | None = None) -> Configuration:
    (one,) = METHODS["lora"].configuration().modifications
    training = Training(lr=(("linear", 1e-3),), head_lr=5e-3, batch_size=_BATCH)
    return Configuration((one.with_width(8).on(layers),), Head(pooling), training)  # type: ignore[arg-type]


def _depths(bench: Workbench, count: int) -> list[Configuration]:
    """LoRA in all layers, in the upper half, in the last, and the head alone."""
    last = bench.backbone.shapes.layers
    masks: list[tuple[int, ...] | None] = [None, tuple(range(last // 2, last)), (last - 1,)]
    heads = [
        Configuration((), Head(p), Training(head_lr=5e-3, batch_size=_BATCH))
        for p in ("first", "mean")
    ]
    return [_lora(p, mask) for mask in masks for p in ("first", "mean")] + heads  # type: ignore[list-item]


def _sampled(bench: Workbench, count: int) -> list[Configuration]:
    """The first random samples of spaces/unified.yaml, with its own settings."""
    drawn = draw_samples(load_space("unified").on(bench.backbone.shapes))
    return list(drawn.configurations[:count])


_TWO = ("(a)", "(b)", "(d)")
SCENARIOS = {
    "LoRA r=8, all layers, first token": Scenario(lambda bench, count: [_lora("first")]),
    "LoRA r=8, all layers, mean": Scenario(lambda bench, count: [_lora("mean")]),
    "LoRA and heads at four depths": Scenario(_depths, _TWO),
    "samples of unified": Scenario(_sampled, _TWO),
}
