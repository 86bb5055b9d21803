"""Batches hold what the model computes: a prompt's positions count, without one nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.task.spec import Generation, TaskSpec
from peftsearch.training import pieces
from peftsearch.training.batches import evaluation_batches
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun
from peftsearch.training.objectives import base, generation
from peftsearch.training.optimisations import Optimisations
from peftsearch.training.positions import Positions
from support.texts import encoded, objective, writer

LENGTH = 12
BUDGET = TrainingBudget(max_steps=3, rungs=(1.0,))


@pytest.fixture(scope="module")
def bench(tiny_roberta: Path, tiny_sentiment_csv: Path) -> Workbench:
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    return Workbench.prepare(str(tiny_roberta), spec, with_prompts=True)


def configured(name: str, width: int, **changes: Any) -> Configuration:
    modifications = (m.with_width(width) for m in METHODS[name].configuration().modifications)
    return Configuration(tuple(modifications), Head("mean"), Training(batch_size=24, **changes))


def begin(bench: Workbench, one: Configuration) -> TrainingRun:
    return TrainingRun(
        *(bench.backbone, bench.train, bench.objective, one, BUDGET, 0),
        optimisations=Optimisations.only(),
    )


@contextmanager
def sizes(backbone: Backbone) -> Iterator[list[tuple[int, int]]]:
    """(texts, positions of each) that the lowest layer is given, forward by forward."""
    seen: list[tuple[int, int]] = []

    def note(module: object, args: tuple[torch.Tensor, ...], kwargs: object) -> None:
        seen.append((args[0].shape[0], args[0].shape[1]))

    hook = backbone.layer(0).register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


def test_what_is_added_to_a_text_is_counted_by_hand() -> None:
    lengths = np.array([5, 5, 6, 9, 30])
    prompt, prefix = Positions(prompt=20), Positions(prefix=33)
    assert prompt.effective_lengths(lengths).tolist() == [25, 25, 26, 29, 50]
    assert prefix.effective_lengths(lengths).tolist() == [14, 14, 15, 18, 39]  # ⌈33 / 4⌉ = 9
    batches = evaluation_batches(prompt.effective_lengths(lengths), 78)
    assert [b.tolist() for b in batches] == [[0, 1, 2], [3], [4]]  # 3 · 26 = 78, 2 · 50 > 78


def test_a_step_is_trained_in_as_many_parts_as_its_positions_need() -> None:
    lengths = np.array([10] * 7 + [30])
    assert Positions(prompt=20).parts(lengths, 400) == 1  # 8 · 50 = 400
    assert Positions(prompt=20).parts(lengths, 399) == 2
    assert Positions(prompt=20).parts(lengths, 100) == 4
    assert Positions(prompt=20).parts(lengths, 1) == 8  # a text at a time, and no less
    assert Positions(prefix=500).parts(lengths, 1) == 1
    assert Positions().parts(lengths, 1) == 1


def test_prompts_add_up_and_of_prefixes_the_longest_counts() -> None:
    one = METHODS["mam"].configuration()
    (prefix,) = (m for m in one.modifications if m.form.name == "prefix")
    longer, shorter = prefix.with_width(40).on((1,)), prefix.with_width(7).on((0,))
    prompt = METHODS["prompt"].configuration().modifications[0].with_width(11)
    assert Positions.of(Configuration((shorter, longer, prompt))) == Positions(11, 40)
    assert Positions.of(METHODS["lora"].configuration()) == Positions()


@pytest.mark.parametrize(("name", "width"), [("prompt", LENGTH), ("lora", 2), ("prefix", 32)])
def test_no_evaluation_batch_computes_more_positions_than_it_may(
    bench: Workbench, name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 256
    monkeypatch.setattr(base, "evaluation_tokens", lambda device: most)
    run = TrainingRun(
        *(bench.backbone, bench.train, bench.objective, configured(name, width), BUDGET, 0),
        optimisations=Optimisations.only("inference"),
    )
    with run, sizes(bench.backbone) as seen:
        run.evaluate(bench.validation)
    assert len(seen) > 1
    assert sum(texts for texts, _ in seen) == len(bench.validation)
    keys = width // 4 if name == "prefix" else 0
    assert all(texts == 1 or texts * (positions + keys) <= most for texts, positions in seen)
    if name == "lora":
        plain = evaluation_batches(bench.validation.inputs.lengths, most)
        assert [texts for texts, _ in seen] == [len(batch) for batch in plain]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_no_training_pass_computes_more_positions_than_it_may(
    bench: Workbench, accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = int(bench.train.lengths.max())
    most = 9 * (longest + LENGTH)
    monkeypatch.setattr(pieces, "max_trained_positions", lambda device: most)
    with (
        begin(bench, configured("prompt", LENGTH, accumulation=accumulation)) as run,
        sizes(bench.backbone) as seen,
    ):
        run.train_to(3)
    assert all(texts * positions <= most for texts, positions in seen)
    assert sum(texts for texts, _ in seen) == 3 * 24
    with begin(bench, configured("lora", 2)) as run, sizes(bench.backbone) as seen:
        run.train_to(3)
    assert [texts for texts, _ in seen] == [24] * 3


def test_parts_of_a_step_add_up_to_the_whole(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.backbone.model.double()
    try:
        found = []
        for most in (1 << 20, 200):
            monkeypatch.setattr(pieces, "max_trained_positions", lambda device, most=most: most)
            with begin(bench, configured("prompt", LENGTH)) as run, sizes(bench.backbone) as seen:
                run.train_to(3)
                found.append({n: p.detach().clone() for n, p in run.model.parameters.items()})
        assert len(seen) > 3
        for name, whole in found[0].items():
            assert torch.allclose(whole, found[1][name], rtol=0, atol=1e-9), name
    finally:
        bench.backbone.model.float()


def test_texts_are_written_in_batches_that_count_the_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """20 tokens of prompt, 3 to be written, 2 beams: (6 + 20 + 3) · 2 = 58 of each text of 6."""
    backbone = writer("llama")
    data, own = encoded(backbone), objective(backbone)
    own = replace(own, generation=Generation(beams=2), max_tokens=3)
    monkeypatch.setattr(generation, "_TOKENS", 300)
    one = Configuration(
        (METHODS["prompt"].configuration().modifications[0].with_width(20),),
        Head("none"),
        Training(batch_size=8),
    )
    with TrainingRun(backbone, data, own, one, BUDGET, 0) as run:
        counts: list[int] = []
        hook = backbone.lm.register_forward_pre_hook(
            lambda module, args, kwargs: counts.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        own.write(run.model, data.first(16))
        hook.remove()
    shortest = int(data.first(16).inputs.lengths.min())
    assert max(counts) // 2 <= 300 // ((shortest + 20 + 3) * 2)
    assert max(counts) > 2
